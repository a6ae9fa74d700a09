#include "parallel/comm_mpi.h"

#define OMPI_SKIP_MPICXX 1  // the C interface alone
#include <mpi.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <utility>

#include "parallel/comm_doorbell.h"
#include "parallel/comm_engine.h"
#include "parallel/comm_guard.h"

namespace af {

// What other threads ask of the thread that owns MPI.
struct MpiWorld::Shared {
  std::mutex mutex;
  bool printed = false;
  int exit_code = -1;  // >= 0: end the job
  std::string reason;  // of the engine's failure; the job ends although nobody calls abort()
  std::int64_t failed_at = 0;
};

namespace comm {
namespace {

constexpr int kHostName = 64;  // bytes, with a zero at the end
constexpr std::int64_t kLongSleep = 100'000'000;  // ns, with a doorbell
constexpr std::int64_t kFirstSleepAfterKnock = 200'000;
constexpr int kLooks = 3;             // Open MPI looks at requests before it looks for messages: what came shows in the next call
constexpr std::size_t kShort = 4000;  // bytes of a message that MPI hands over at once (the shared-memory transport's eager limit is 4096)
constexpr std::int64_t kAbortGrace = 2'000'000'000;  // ns from a failure of the engine until it ends the job by itself

std::string host_name() {
  char name[256] = "?";
  gethostname(name, sizeof(name) - 1);
  return name;
}

void check(int status, const char* what) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(status, text, &length);
  throw InternalError(fmt::format("{}: {}", what, text));
}

template <class Shared>
class MpiTransport : public Transport {
 public:
  MpiTransport(Shared& shared, Guard& guard, int ranks_on_host) : shared_(shared) {
    int provided = 0, initialized = 0;
    MPI_Initialized(&initialized);
    AF_CHECK(!initialized, "a second MpiWorld in one process");
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
    guard.all_are_in("what follows MPI_Init");  // which ends when all ranks have come to it
    check(MPI_Comm_dup(MPI_COMM_WORLD, &comm_), "MPI_Comm_dup");
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
    char own_host[kHostName] = "";
    host_name().copy(own_host, kHostName - 1);
    hosts_.resize(std::size_t(size_) * kHostName);
    check(MPI_Allgather(own_host, kHostName, MPI_BYTE, hosts_.data(), kHostName, MPI_BYTE, comm_), "MPI_Allgather");
    int *limit = nullptr, found = 0;
    MPI_Comm_get_attr(comm_, MPI_TAG_UB, &limit, &found);
    AF_CHECK(found && *limit >= make_tag(Axis::pp, kMostGroups, kSequences - 1, Phase(7)), "this MPI has no tags of 31 bits");
    char name[64] = "";
    if (rank_ == 0) fmt::format_to_n(name, sizeof(name) - 1, "/af_bells_{}_{}", getpid(), now_ns());
    check(MPI_Bcast(name, sizeof(name), MPI_BYTE, 0, comm_), "MPI_Bcast");
    bells_ = std::make_unique<Doorbells>(name, rank_, size_);
    check(MPI_Barrier(comm_), "MPI_Barrier");
    Doorbells::remove(name);
    prctl(PR_SET_TIMERSLACK, 1000UL);  // of this thread: sleeps of 20 us are 20 us, not 70
    const int cores = int(std::thread::hardware_concurrency());
    spin_ = spin_microseconds(ranks_on_host) * 1000;
    yield_ = ranks_on_host <= cores ? 50'000 : 0;
    // All ranks of a host looking that often take some 10 % of its cores.
    longest_sleep_ = std::clamp<std::int64_t>(20'000 * ranks_on_host / cores, 100'000, 4'000'000);
  }

  ~MpiTransport() override {
    if (shared_.failed_at) {  // the others would wait in MPI_Finalize
      shared_.failed_at -= kAbortGrace;
      abort_where_asked();
    }
    for (std::size_t i = 0; i < handles_.size(); ++i) {  // of heartbeats
      if (!requests_[i]->send) MPI_Cancel(&handles_[i]);
      MPI_Request_free(&handles_[i]);
    }
    MPI_Comm_free(&comm_);
    MPI_Finalize();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string host_of(int rank) const override { return &hosts_[std::size_t(rank) * kHostName]; }

  void start(Request& request) override {
    MPI_Request& handle = handles_.emplace_back();
    const int count = int(request.bytes);
    if (request.send) {
      check(MPI_Isend(request.data, count, MPI_BYTE, request.peer, request.tag, comm_, &handle), "MPI_Isend");
    } else {
      check(MPI_Irecv(request.data, count, MPI_BYTE, request.peer, request.tag, comm_, &handle), "MPI_Irecv");
    }
    requests_.push_back(&request);
    sleeps_at_start_.push_back(sleeps_);
    polled_ += polled(request);
    if (request.send) bells_->knock(request.peer);
  }

  bool progress() override {
    abort_where_asked();
    const int n = int(handles_.size());
    if (!n) return false;
    ended_.resize(std::size_t(n)), statuses_.resize(std::size_t(n));
    int count = 0, status = MPI_SUCCESS;
    for (int i = 0; i < kLooks && count == 0 && status == MPI_SUCCESS; ++i)
      status = MPI_Testsome(n, handles_.data(), &count, ended_.data(), statuses_.data());
    if (status != MPI_ERR_IN_STATUS) check(status, "MPI_Testsome");
    if (count == MPI_UNDEFINED || count == 0) return false;
    for (int i = 0; i < count; ++i) {
      Request& request = *requests_[std::size_t(ended_[std::size_t(i)])];
      const MPI_Status& end = statuses_[std::size_t(i)];
      int received = 0;
      if (!request.send) MPI_Get_count(&end, MPI_BYTE, &received);
      request.received = std::size_t(received);
      if (status == MPI_ERR_IN_STATUS && end.MPI_ERROR != MPI_SUCCESS) {
        int kind = 0;
        MPI_Error_class(end.MPI_ERROR, &kind);
        if (kind != MPI_ERR_TRUNCATE) check(end.MPI_ERROR, request.send ? "MPI_Isend" : "MPI_Irecv");
        request.received = std::max(request.received, request.bytes + 1);
      }
      request.done = true;
      polled_ -= polled(request);
      // A long message's sender ends with its receiver; a send that MPI had put off has left only now.
      const bool late = sleeps_at_start_[std::size_t(ended_[std::size_t(i)])] != sleeps_;
      if (request.send ? late : request.bytes > kShort) bells_->knock(request.peer);
      requests_[std::size_t(ended_[std::size_t(i)])] = nullptr;
    }
    std::size_t kept = 0;
    for (std::size_t i = 0; i < requests_.size(); ++i)
      if (requests_[i]) requests_[kept] = requests_[i], handles_[kept] = handles_[i], sleeps_at_start_[kept] = sleeps_at_start_[i], ++kept;
    requests_.resize(kept), handles_.resize(kept), sleeps_at_start_.resize(kept);
    idle_since_ = 0, knocked_ = false;
    return true;
  }

  // Look again at once for a while, then after giving way, then sleep until somebody knocks. Who is on another host cannot,
  // and of a long message (MPI sends it in steps of its own) only the end is known: then sleeps are short. So they are, for a
  // while, after a knock with which nothing came: over TCP the message is later than the knock.
  void idle(bool waiting) override {
    if (std::exchange(knocked_, false)) sleep_after_knock_ = kFirstSleepAfterKnock;
    const std::uint32_t heard = std::exchange(heard_, bells_->knocks());
    if (heard_ != heard) {
      knocked_ = !called_.exchange(false);
      return;
    }
    if (waiting) {
      const std::int64_t now = steady_ns();
      if (!idle_since_) idle_since_ = now, sleep_ = 20'000;
      if (now - idle_since_ < spin_) return;
      if (now - idle_since_ < spin_ + yield_) return void(sched_yield());
    }
    ++sleeps_;
    bells_->sleep(heard_, !waiting ? kLongSleep : std::min(sleep_after_knock_, polled_ ? sleep_ : kLongSleep));
    sleep_ = std::min(sleep_ * 3 / 2, longest_sleep_);
    sleep_after_knock_ = std::min(sleep_after_knock_ * 4, kLongSleep);
  }

  void wake() override {
    called_ = true;
    bells_->knock(rank_);
  }

  // MPI cannot take a message back: no call of MPI, but the last, follows.
  void withdraw() override { requests_.clear(), handles_.clear(), sleeps_at_start_.clear(), polled_ = 0; }
  bool failed() const override { return false; }
  std::string failure() const override { return {}; }
  void fail(const std::string& reason) override {
    std::lock_guard lock(shared_.mutex);
    if (shared_.failed_at) return;
    shared_.reason = reason, shared_.failed_at = steady_ns();
  }

 private:
  int polled(const Request& request) const { return request.operation && (request.send || request.bytes > kShort || !bells_->here(request.peer)); }

  [[noreturn]] static void abort(int exit_code) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));  // mpirun passes on what was printed, or loses it in what follows
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    _exit(exit_code);
  }

  void abort_where_asked() {
    std::unique_lock lock(shared_.mutex);
    if (shared_.exit_code < 0 && shared_.failed_at && steady_ns() - shared_.failed_at > kAbortGrace) {
      if (!shared_.printed) std::fprintf(stderr, "rank %d (%s): %s\n", rank_, host_name().c_str(), shared_.reason.c_str());
      shared_.printed = true, shared_.exit_code = kExitFailed;
    }
    const int code = shared_.exit_code;
    lock.unlock();
    if (code >= 0) abort(code);
  }

  Shared& shared_;
  std::unique_ptr<Doorbells> bells_;
  std::uint32_t heard_ = 0;
  bool knocked_ = false;             // by another rank, and nothing has come since
  std::atomic<bool> called_{false};  // by another thread of this rank
  int polled_ = 0;                   // requests of which no knock tells; a short send is done at the next look, or MPI has put it off
  std::uint32_t sleeps_ = 0;
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  std::vector<char> hosts_;  // [size_, kHostName]
  std::vector<MPI_Request> handles_;
  std::vector<Request*> requests_;
  std::vector<std::uint32_t> sleeps_at_start_;  // of each request
  std::vector<int> ended_;
  std::vector<MPI_Status> statuses_;
  std::int64_t spin_ = 0, yield_ = 0, idle_since_ = 0;  // ns, as what follows
  std::int64_t sleep_ = 20'000, longest_sleep_ = 100'000, sleep_after_knock_ = kLongSleep;
};

}  // namespace
}  // namespace comm

bool started_by_mpi(const char* ompi_comm_world_size, const char* pmix_rank) { return ompi_comm_world_size || pmix_rank; }

MpiWorld::MpiWorld(const CommOptions& options)
    : shared_(std::make_shared<Shared>()), guard_(std::make_unique<comm::Guard>(options.timeout_seconds, options.heartbeat_seconds)) {
  guard_->begin("MPI_Init");
  engine_ = std::make_unique<comm::Engine>(
      [shared = shared_, guard = guard_.get(), n = options.ranks_on_host] { return std::make_unique<comm::MpiTransport<Shared>>(*shared, *guard, n); }, options);
  guard_->end();
}

MpiWorld::~MpiWorld() {
  try {
    world().barrier().wait();  // for those that are late: heartbeats tell them from those that are gone, MPI_Finalize could not
  } catch (const InternalError&) {  // the engine says why, and ends the job
  }
  guard_->all_are_in("MPI_Finalize");
  engine_.reset();
}
Comm MpiWorld::world() const { return engine_->world(); }
int MpiWorld::rank() const { return engine_->rank(); }
int MpiWorld::size() const { return engine_->size(); }

void MpiWorld::abort(const std::string& message, int exit_code) {
  {
    std::lock_guard lock(shared_->mutex);
    if (!shared_->printed) std::fprintf(stderr, "rank %d (%s): %s\n", engine_->rank(), comm::host_name().c_str(), message.c_str());
    std::fflush(stderr);
    shared_->printed = true, shared_->exit_code = exit_code;
  }
  engine_->wake();
  std::this_thread::sleep_for(std::chrono::seconds(10));  // the engine's thread ends the process
  _exit(exit_code);
}

}  // namespace af
