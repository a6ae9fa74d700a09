// One run at a time writes to an output directory: two would remove each other's checkpoints. The file `lock` in it is locked while a run
// lasts, by the system, which lets go of it however the process ends. On file systems without locks (flock) nothing is guarded.
#pragma once
#include <functional>
#include <string>

namespace af {

class RunLock {
 public:
  // Waits for the run that is there to end: one that was killed may need a moment, and the system one to see that its host is gone. Says so,
  // and gives up with UserError after kPatience, or kPatienceOtherHost where that run is on another host, or when `stop` says so.
  RunLock(const std::string& output_dir, const std::function<bool()>& stop);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  static constexpr double kPatience = 10, kPatienceOtherHost = 180;  // seconds

 private:
  int descriptor_ = -1;
};

}  // namespace af
