// When a run ends before its work does: somebody asks (a signal), or the time that the job has is nearly over. Either way the trainer
// saves and the program exits with kExitRequeue, so that a batch system starts it again.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace af {

// From now on SIGTERM, SIGUSR1 and SIGINT are requests to stop. Another one ends the process at once, without saving, with
// kExitRequeue; within a second it is the same request, for mpirun, srun and shells may each deliver one. Call it before MPI starts and
// before anything slow; `speaks`: this process is the one that says so.
void catch_stop_signals(bool speaks);
int stop_signal();  // the one that came first; 0: none

// "3h30m", "90s", "1d12h" in seconds; a number alone is seconds. UserError names `option`.
double duration_seconds(const std::string& option, const std::string& text);

// Whether there is time for another step, from what steps and saves have taken so far.
class TimeLimit {
 public:
  using Clock = std::chrono::steady_clock;
  // Seconds for what nobody can measure: other ranks' delays, the processes' end.
  static constexpr double kMargin = 2;

  explicit TimeLimit(Clock::time_point end = Clock::time_point::max()) : end_(end) {}
  Clock::time_point end() const { return end_; }
  void stepped(double seconds);
  // Steps are of so many tokens from now on, and take as much longer as these are more.
  void begin_stage(double tokens);
  void saved(double seconds) { save_ = measured_ && save_ > seconds ? save_ : seconds, measured_ = true; }
  void expect_save(double seconds) { save_ = measured_ ? save_ : seconds; }  // until one is measured
  // Whether it is too late, at `now`, for another step and a save after it; without a step: for a moment's work and a save.
  enum class Next { step, moment };
  bool up(Clock::time_point now, Next next) const;

 private:
  Clock::time_point end_;
  double step_ = 0, save_ = 0;  // the longest of the last ones
  bool measured_ = false;
  double tokens_ = 0;
};

// What all ranks agree on (a maximum): 0 go on, a signal's number, or kTimeIsUp.
inline constexpr int kTimeIsUp = 1000;
std::string stop_reason(int code);  // "SIGUSR1", "the time limit"

}  // namespace af
