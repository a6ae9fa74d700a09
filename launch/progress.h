// How far a long command is, on stderr: a bar that is drawn anew on a terminal, else a line every few seconds.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace af {

// What is counted beside the fraction: "12.5 MB/s".
struct ProgressUnit {
  const char* name;
  double size;
};
inline constexpr ProgressUnit kMegabytes{"MB", 1e6}, kSamples{"samples", 1}, kAttempts{"attempts", 1};

// "[#####---------------]  25.0 %  12.5 MB/s  2:05 left"; `fraction` in [0, 1] was reached in `seconds`, the first
// `skipped` of it at once. amount: bytes of text, or samples, in this time.
std::string progress_line(double fraction, double skipped, std::int64_t amount, double seconds, const ProgressUnit& unit = kMegabytes);

class Progress {
 public:
  Progress(std::string what, bool terminal, const ProgressUnit& unit = kMegabytes);
  ~Progress();
  Progress(const Progress&) = delete;

  // What is done so far, and how many bytes of text (or samples) went through here. The first call is the beginning.
  void show(double fraction, std::int64_t amount);
  void clear();  // takes the bar away, for other lines on the terminal

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_;
  ProgressUnit unit_;
  bool terminal_, drawn_ = false;
  double first_ = -1;  // the fraction of the first call
  Clock::time_point begin_, shown_;
};

}  // namespace af
