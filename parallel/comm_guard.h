// Ends this process where nobody else can: MPI_Init and MPI_Finalize wait without limit for a rank that does not come, and the ranks
// of a killed mpirun would go on, and write, beside the run that is started anew.
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
  // of this host are stopped; 0: never.
  Guard(double timeout_seconds, double heartbeat_seconds);
  ~Guard();
  Guard(const Guard&) = delete;
  void begin(const char* what);  // from now on until end(), or the process ends with kExitFailed and a message
  void end();

 private:
  void watch();
  void look_for_stopped_ranks(std::int64_t now);
  const double timeout_, heartbeat_;
  const pid_t parent_;  // mpirun, or what stands for it on this host
  std::mutex mutex_;    // guards what follows
  std::condition_variable changed_;
  const char* what_ = nullptr;
  std::int64_t begun_ = 0, looked_ = 0;  // ns
  int stopped_looks_ = 0;                // in a row, with a stopped rank
  bool over_ = false;
  std::thread thread_;
};

// Ranks that a signal has stopped, among the children of a process: "; rank 2 (process 4711) is stopped", or "". A rank is told
// by the environment that mpirun or srun gave it.
std::string stopped_ranks(pid_t parent);

}  // namespace af::comm
