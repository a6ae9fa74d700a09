// Ends this process where nobody else can: MPI_Init and MPI_Finalize wait without limit for a rank that does not come, and the ranks
// of a killed mpirun would go on, and write, beside the run that is started anew. Times are counted in the looks of this process, as
// the heartbeat's (comm_heartbeat.h): on a machine that has too much to do they are longer.
#pragma once
#include <sys/types.h>

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace af::comm {

class Guard {
 public:
  // Looks twenty times a second, from a thread of its own. timeout_seconds: of what begin() begins; heartbeat_seconds: while ranks
  // of this host are stopped, and of what all_are_in() begins; 0: never.
  Guard(double timeout_seconds, double heartbeat_seconds);
  ~Guard();
  Guard(const Guard&) = delete;
  void begin(const char* what);  // from now on until end(), or the process ends with kExitFailed and a message
  void all_are_in(const char* what);  // likewise, where no rank can be late: one that is not heard of is gone, or the network to it
  void end();

 private:
  void start(const char* what, double limit);
  void watch();
  void look_for_stopped_ranks(std::int64_t now);
  const double timeout_, heartbeat_;
  const pid_t parent_;  // mpirun, or what stands for it on this host
  std::mutex mutex_;    // guards what follows
  std::condition_variable changed_;
  const char* what_ = nullptr;
  double limit_ = 0, waited_ = 0;                   // seconds
  std::int64_t last_ = 0, looked_for_stopped_ = 0;  // ns
  int stopped_looks_ = 0;                           // in a row, with a stopped rank
  bool over_ = false;
  std::thread thread_;
};

// Ranks that a signal has stopped, among the children of a process: "; rank 2 (process 4711) is stopped", or "". A rank is told
// by the environment that mpirun or srun gave it.
std::string stopped_ranks(pid_t parent);

}  // namespace af::comm
