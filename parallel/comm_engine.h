// One per rank: a thread that owns the transport and moves all operations under way, begun in the order of the calls.
#pragma once
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "parallel/comm_fault.h"
#include "parallel/comm_heartbeat.h"
#include "parallel/comm_operation.h"
#include "parallel/comm_recorder.h"
#include "parallel/comm_trace.h"

namespace af::comm {

// How long a thread that waits polls before it sleeps: 0 where not every thread has a core.
int spin_microseconds(int ranks_on_host);

class Engine {
 public:
  // `make` runs on the engine's thread, as everything of the transport does.
  Engine(std::function<std::unique_ptr<Transport>()> make, const CommOptions& options, const CommFault& fault = {});
  ~Engine();  // ends what is under way
  Engine(const Engine&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  Comm world() const { return size_ > 1 ? Comm(world_) : Comm(); }
  // A group of ranks that agreed on `id`; its index is this rank's place. The engine owns it.
  Group* add_group(Axis axis, int id, std::vector<int> members, int rank);
  int next_group() const { return next_group_; }  // the first number that this rank has not used

  // An operation to fill (group, header's kind and axis are set) and submit. Nobody holds it after wait().
  Operation& take(Group* group);
  // nullptr: there is nothing to wait for. Throws after a failure.
  Operation* submit(Operation& operation);
  void wait(Operation* operation);
  // Stops everything and returns when no memory of this rank is used any more.
  void abandon(Operation* operation);
  void wake() { transport_->wake(); }
  AxisBytes bytes() const;
  std::int64_t waited() const { return waited_.load(std::memory_order_relaxed); }  // ns in wait()
  std::vector<TraceEvent> trace_events() const;

  void start(Request& request);          // for operations, on the engine's thread
  void fail(const std::string& reason);  // likewise, or before the thread ends

 private:
  void run();
  bool accept();
  bool advance();
  void watch();
  void stop_all(const std::string& reason);
  void finish(Operation* operation, Operation::State state);
  void release(Operation* operation);  // under the lock
  void record(const Operation& operation, FlightRecord::State state);
  std::string whereabouts(const std::vector<int>& ranks) const;
  std::string late_message(const Operation& operation) const;
  std::string silence_message() const;
  std::string name_of_rank(int rank) const;  // "rank 3 on node7", without the host where none is known

  CommOptions options_;
  CommFault fault_;
  int fault_count_ = 0;
  std::unique_ptr<Transport> transport_;
  int rank_ = 0, size_ = 1, next_group_ = 1;
  Group* world_ = nullptr;
  std::vector<std::unique_ptr<Group>> groups_;
  std::unique_ptr<FlightRecorder> recorder_;
  std::optional<Heartbeat> heartbeat_;
  std::vector<Operation*> active_;  // in the order of their start
  std::int64_t watched_ = 0;
  std::vector<int> missing_;  // room for record()
  std::array<std::atomic<std::int64_t>, kAxes> sent_ = {};
  std::atomic<std::int64_t> waited_{0};

  mutable std::mutex mutex_;  // guards what follows, and groups' counters and free lists
  std::condition_variable changed_;
  std::vector<Operation*> submitted_;
  std::uint64_t number_ = 0;
  std::vector<TraceEvent> trace_;
  bool stopping_ = false, abandoned_ = false, ready_ = false;
  std::string failure_;  // empty: none
  std::exception_ptr start_error_;
  std::thread thread_;
};

}  // namespace af::comm
