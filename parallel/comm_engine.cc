#include "parallel/comm_engine.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace af::comm {

int spin_microseconds(int ranks_on_host) { return 2 * ranks_on_host <= int(std::thread::hardware_concurrency()) ? 50 : 0; }

Engine::Engine(std::function<std::unique_ptr<Transport>()> make, const CommOptions& options, const CommFault& fault)
    : options_(options), fault_(fault) {
  thread_ = std::thread([this, make = std::move(make)] {
    std::exception_ptr error;
    try {
      transport_ = make();
      rank_ = transport_->rank(), size_ = transport_->size();
      if (!options_.recorder_directory.empty())
        recorder_ = std::make_unique<FlightRecorder>(FlightRecorder::path_of(options_.recorder_directory, rank_), rank_);
    } catch (const std::exception& what) {
      error = std::current_exception();
      if (transport_) transport_->fail(what.what());
    }
    {
      std::lock_guard lock(mutex_);
      start_error_ = error, ready_ = true;
      changed_.notify_all();
    }
    if (!error) run();
    transport_.reset();
  });
  std::unique_lock lock(mutex_);
  submitted_.reserve(1024);
  changed_.wait(lock, [&] { return ready_; });
  if (start_error_) {
    lock.unlock();
    thread_.join();
    std::rethrow_exception(start_error_);
  }
  lock.unlock();
  std::vector<int> all(std::size_t(size_), 0);
  std::iota(all.begin(), all.end(), 0);
  world_ = add_group(Axis::world, 0, std::move(all), rank_);
}

Engine::~Engine() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    transport_->wake();  // under the lock: the thread that sees it destroys the transport
  }
  thread_.join();
}

Group* Engine::add_group(Axis axis, int id, std::vector<int> members, int rank) {
  AF_CHECK(id < kMostGroups, "{} groups of ranks; a tag has room for {}", id, kMostGroups);
  std::lock_guard lock(mutex_);
  Group& group = *groups_.emplace_back(std::make_unique<Group>());
  group.engine = this, group.axis = axis, group.id = id, group.rank = rank, group.members = std::move(members);
  group.sent.resize(group.members.size()), group.received.resize(group.members.size());
  next_group_ = std::max(next_group_, id + 1);
  return &group;
}

Operation& Engine::take(Group* group) {
  std::lock_guard lock(mutex_);
  if (!failure_.empty()) throw InternalError(failure_);
  if (group->free.empty()) {
    AF_CHECK(group->operations.size() < kSequences / 2, "{} operations under way in one group", group->operations.size());
    Operation& made = *group->operations.emplace_back(std::make_unique<Operation>());
    group->free.reserve(group->operations.capacity());
    made.group = group;
    made.reserve();
    return made;
  }
  Operation& operation = *group->free.back();
  group->free.pop_back();
  return operation;
}

Operation* Engine::submit(Operation& operation) {
  bool waits = true;
  {
    std::lock_guard lock(mutex_);
    if (!failure_.empty()) throw InternalError(failure_);
    Group& group = *operation.group;
    Header& header = operation.header;
    header.axis = group.axis, header.group = group.id;
    const bool message = header.kind == CommKind::send || header.kind == CommKind::receive;
    header.sequence = !message                        ? group.sequence++
                      : header.kind == CommKind::send ? group.sent[std::size_t(header.root)]++
                                                      : group.received[std::size_t(header.root)]++;
    operation.detached = false, operation.not_before = 0, operation.bytes = 0;
    if (fault_.what != CommFault::What::none && fault_.axis == group.axis &&
        (fault_.kind == header.kind || (message && (fault_.kind == CommKind::send || fault_.kind == CommKind::receive)))) {
      const int nth = message ? int(header.sequence) : fault_count_++;
      if (fault_.nth < 0 || fault_.nth == nth) {
        waits = false;
        if (fault_.what == CommFault::What::drop) return group.free.push_back(&operation), nullptr;
        operation.detached = true, operation.not_before = steady_ns() + fault_.delay_ms * std::int64_t(1'000'000);
      }
    }
    operation.number = number_++;
    operation.begun = now_ns(), operation.started = steady_ns(), operation.ended = operation.wait_begun = 0;
    operation.state.store(Operation::State::running, std::memory_order_relaxed);
    submitted_.push_back(&operation);
  }
  transport_->wake();
  return waits ? &operation : nullptr;
}

void Engine::wait(Operation* operation) {
  if (options_.trace) operation->wait_begun = now_ns();
  const std::int64_t begun = steady_ns();
  if (const int spin = spin_microseconds(options_.ranks_on_host)) {
    const std::int64_t end = begun + spin * 1000;
    while (operation->state.load() == Operation::State::running && steady_ns() < end) {
    }
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return operation->state.load() != Operation::State::running; });
  waited_.fetch_add(steady_ns() - begun, std::memory_order_relaxed);
  const bool failed = operation->state.load() == Operation::State::failed;
  release(operation);
  if (failed) throw InternalError(failure_);
}

void Engine::abandon(Operation* operation) {
  std::unique_lock lock(mutex_);
  abandoned_ = true;
  lock.unlock();
  transport_->wake();
  lock.lock();
  changed_.wait(lock, [&] { return operation->state.load() != Operation::State::running; });
  release(operation);
}

void Engine::release(Operation* operation) {
  if (options_.trace && operation->wait_begun)
    trace_.push_back({operation->header.kind, operation->header.axis, operation->header.sequence, operation->bytes, operation->begun,
                      operation->ended, operation->wait_begun, now_ns()});
  operation->group->free.push_back(operation);
}

std::vector<TraceEvent> Engine::trace_events() const {
  std::lock_guard lock(mutex_);
  return trace_;
}

AxisBytes Engine::bytes() const {
  AxisBytes bytes;
  for (int i = 0; i < kAxes; ++i) bytes.sent[std::size_t(i)] = sent_[std::size_t(i)].load(std::memory_order_relaxed);
  return bytes;
}

void Engine::start(Request& request) {
  if (request.send && phase_of(request.tag) != Phase::header)
    sent_[std::size_t(axis_of(request.tag))].fetch_add(std::int64_t(request.bytes), std::memory_order_relaxed);
  transport_->start(request);
}

void Engine::run() {
  const bool silent = fault_.what == CommFault::What::silence && (fault_.nth < 0 || fault_.nth == rank_);
  heartbeat_.emplace(*transport_, options_.heartbeat_seconds, steady_ns(), silent);
  active_.reserve(1024);
  missing_.reserve(std::size_t(size_));
  while (true) {
    bool moved = false;
    try {
      if (failure_.empty() && transport_->failed()) stop_all(transport_->failure());
      moved = accept();
      moved |= transport_->progress();
      moved |= advance();
      watch();
    } catch (const std::exception& error) {
      fail(error.what());
    }
    {
      std::lock_guard lock(mutex_);
      if (abandoned_ && failure_.empty()) {
        failure_ = "this rank's communication was stopped by an error";
        moved = true;
      }
      if (stopping_ && active_.empty() && submitted_.empty()) break;
    }
    if (!failure_.empty() && !active_.empty()) stop_all(failure_);
    if (!moved) transport_->idle(!active_.empty());
  }
  heartbeat_->leave();
}

bool Engine::accept() {
  const std::size_t before = active_.size();
  {
    std::lock_guard lock(mutex_);
    if (submitted_.empty()) return false;
    active_.insert(active_.end(), submitted_.begin(), submitted_.end());
    submitted_.clear();
  }
  if (!failure_.empty()) return true;  // only this thread writes it; stop_all() follows
  for (std::size_t i = before; i < active_.size(); ++i) {
    record(*active_[i], FlightRecord::State::started);
    if (!active_[i]->not_before) active_[i]->begin();
  }
  return true;
}

bool Engine::advance() {
  if (!failure_.empty()) return false;
  bool moved = false;
  for (Operation*& operation : active_) {
    if (operation->not_before && steady_ns() >= operation->not_before) operation->not_before = 0, operation->begin();
    if (operation->not_before) continue;
    moved |= operation->advance();
    if (!operation->finished()) continue;
    operation->release_staging();
    finish(std::exchange(operation, nullptr), Operation::State::done);
    moved = true;
  }
  std::erase(active_, nullptr);
  return moved;
}

void Engine::finish(Operation* operation, Operation::State state) {
  operation->ended = now_ns();
  record(*operation, state == Operation::State::done ? FlightRecord::State::done : FlightRecord::State::failed);
  std::lock_guard lock(mutex_);
  operation->state.store(state);
  if (operation->detached) release(operation);
  changed_.notify_all();
}

void Engine::stop_all(const std::string& reason) {
  heartbeat_->leave();  // this rank says itself what is wrong
  transport_->withdraw();
  {
    std::lock_guard lock(mutex_);
    if (failure_.empty()) failure_ = reason;
    active_.insert(active_.end(), submitted_.begin(), submitted_.end());
    submitted_.clear();
  }
  for (Operation* operation : active_)
    if (operation) finish(operation, Operation::State::failed);
  active_.clear();
}

void Engine::fail(const std::string& reason) {
  transport_->fail(reason);
  stop_all(reason);
}

}  // namespace af::comm
