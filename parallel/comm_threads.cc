#include "parallel/comm_threads.h"

#include <chrono>
#include <cstring>
#include <deque>

#include "parallel/comm_engine.h"

namespace af {
namespace comm {
namespace {

// What has come for a rank. Data go from the sender's memory to the receiver's in one copy, made under the receiver's lock
// by whichever of the two comes second.
struct Mailbox {
  struct Sent {
    Request* request;
    int from;
  };
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Request*> receives;  // waiting for a sender, in the order of their start
  std::vector<Sent> sends;         // waiting for this rank to receive
  std::vector<Request*> ended;     // requests of this rank that others have ended
  bool awake = false;
};

struct World {
  explicit World(int n) : mailboxes(std::size_t(n)) {
    const std::size_t some = std::size_t(std::max(64, 16 * n));  // messages under way to a rank; more takes memory anew
    for (Mailbox& box : mailboxes) box.receives.reserve(some), box.sends.reserve(some), box.ended.reserve(some);
  }
  std::deque<Mailbox> mailboxes;
  std::mutex mutex;
  std::atomic<bool> failed{false};
  std::string reason;        // with the rank
  std::exception_ptr error;  // the first; its type is kept
  int failed_rank = -1;

  void fail(int rank, const std::string& message, std::exception_ptr first) {
    {
      std::lock_guard lock(mutex);
      if (failed) return;
      reason = fmt::format("rank {}: {}", rank, message), error = first, failed_rank = rank;
      failed = true;
    }
    for (Mailbox& box : mailboxes) {
      std::lock_guard lock(box.mutex);
      box.awake = true;
      box.changed.notify_all();
    }
  }
};

class ThreadTransport : public Transport {
 public:
  ThreadTransport(World& world, int rank, int spin_microseconds)
      : world_(world), box_(world.mailboxes[std::size_t(rank)]), rank_(rank), spin_(spin_microseconds) {}
  ~ThreadTransport() override { withdraw(); }
  int rank() const override { return rank_; }
  int size() const override { return int(world_.mailboxes.size()); }
  std::string host_of(int) const override { return {}; }

  void start(Request& request) override {
    Mailbox& box = request.send ? world_.mailboxes[std::size_t(request.peer)] : box_;
    Request* other = nullptr;
    {
      std::lock_guard lock(box.mutex);
      if (request.send) {
        auto it = std::find_if(box.receives.begin(), box.receives.end(), [&](Request* r) { return r->peer == rank_ && r->tag == request.tag; });
        if (it == box.receives.end()) return box.sends.push_back({&request, rank_});
        other = *it;
        box.receives.erase(it);
        move(request, *other);
        box.ended.push_back(other);
        box.awake = true;
        box.changed.notify_all();
      } else {
        auto it = std::find_if(box.sends.begin(), box.sends.end(),
                               [&](const Mailbox::Sent& s) { return s.from == request.peer && s.request->tag == request.tag; });
        if (it == box.sends.end()) return box.receives.push_back(&request);
        other = it->request;
        box.sends.erase(it);
        move(*other, request);
      }
    }
    request.done = moved_ = true;
    if (!request.send) {  // the sender learns in its own mailbox
      Mailbox& sender = world_.mailboxes[std::size_t(request.peer)];
      std::lock_guard lock(sender.mutex);
      sender.ended.push_back(other);
      sender.awake = true;
      sender.changed.notify_all();
    }
  }

  bool progress() override {
    bool any = moved_;
    moved_ = false;
    std::lock_guard lock(box_.mutex);
    for (Request* request : box_.ended) request->done = any = true;
    box_.ended.clear();
    return any;
  }

  void idle(bool waiting) override {
    if (spin_ > 0 && waiting) {
      const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(spin_);
      while (std::chrono::steady_clock::now() < end) {
        std::unique_lock lock(box_.mutex, std::try_to_lock);
        if (lock && box_.awake) break;
      }
    }
    std::unique_lock lock(box_.mutex);
    box_.changed.wait_for(lock, std::chrono::milliseconds(waiting ? 20 : 100), [&] { return box_.awake; });
    box_.awake = false;
  }

  void wake() override {
    std::lock_guard lock(box_.mutex);
    box_.awake = true;
    box_.changed.notify_all();
  }

  void withdraw() final {
    for (int i = 0; i < size(); ++i) {
      Mailbox& box = world_.mailboxes[std::size_t(i)];
      std::lock_guard lock(box.mutex);
      std::erase_if(box.sends, [&](const Mailbox::Sent& s) { return s.from == rank_; });
      if (i == rank_) box.receives.clear();
    }
  }

  bool failed() const override { return world_.failed; }
  std::string failure() const override {
    std::lock_guard lock(world_.mutex);
    return world_.reason;
  }
  void fail(const std::string& reason) override { world_.fail(rank_, reason, nullptr); }

 private:
  static void move(Request& from, Request& to) {
    to.received = from.bytes;
    if (std::size_t n = std::min(from.bytes, to.bytes)) std::memcpy(to.data, from.data, n);
  }
  World& world_;
  Mailbox& box_;
  int rank_, spin_;
  bool moved_ = false;
};

}  // namespace
}  // namespace comm

void run_ranks(int n, const ThreadOptions& options, const std::function<void(const Comm& world)>& f) {
  AF_CHECK(n > 0, "{} ranks", n);
  comm::World world(n);
  CommOptions comm_options = options.comm;
  comm_options.ranks_on_host = n;
  std::vector<std::unique_ptr<comm::Engine>> engines;
  for (int r = 0; r < n; ++r)
    engines.push_back(std::make_unique<comm::Engine>(
        [&world, n, r] { return std::make_unique<comm::ThreadTransport>(world, r, comm::spin_microseconds(n)); }, comm_options, options.fault));
  std::vector<std::thread> threads;
  for (int r = 0; r < n; ++r)
    threads.emplace_back([&, r] {
      try {
        f(engines[std::size_t(r)]->world());
      } catch (const std::exception& error) {
        world.fail(r, error.what(), std::current_exception());
      }
    });
  for (std::thread& thread : threads) thread.join();
  engines.clear();
  if (!world.failed) return;
  try {
    if (world.error) std::rethrow_exception(world.error);
  } catch (const UserError&) {
    throw UserError(world.reason);
  } catch (const std::exception&) {
  }
  throw InternalError(world.reason);
}

}  // namespace af
