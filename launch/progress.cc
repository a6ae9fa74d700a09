#include "launch/progress.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>

namespace af {
namespace {

constexpr double kTerminalSeconds = 0.2, kLineSeconds = 5;

std::string time_text(double seconds) {
  const std::int64_t s = std::int64_t(seconds + 0.5);
  return s >= 3600 ? fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60) : fmt::format("{}:{:02}", s / 60, s % 60);
}

}  // namespace

std::string progress_line(double fraction, double skipped, std::int64_t amount, double seconds, const ProgressUnit& unit) {
  constexpr int kWidth = 20;
  fraction = std::clamp(fraction, 0.0, 1.0);
  const int full = int(fraction * kWidth);
  std::string line = "[" + std::string(std::size_t(full), '#') + std::string(std::size_t(kWidth - full), '-') + "]";
  line += fmt::format(" {:5.1f} %", 100 * fraction);
  if (seconds > 0) line += fmt::format("  {:.1f} {}/s", double(amount) / unit.size / seconds, unit.name);
  if (fraction > skipped && seconds > 0) line += fmt::format("  {} left", time_text(seconds * (1 - fraction) / (fraction - skipped)));
  return line;
}

Progress::Progress(std::string what, bool terminal, const ProgressUnit& unit) : what_(std::move(what)), unit_(unit), terminal_(terminal) {}

Progress::~Progress() { clear(); }

void Progress::show(double fraction, std::int64_t amount) {
  const Clock::time_point now = Clock::now();
  if (first_ < 0) first_ = fraction, begin_ = shown_ = now;
  if (std::chrono::duration<double>(now - shown_).count() < (terminal_ ? kTerminalSeconds : kLineSeconds)) return;
  shown_ = now;
  const std::string line = what_ + " " + progress_line(fraction, first_, amount, std::chrono::duration<double>(now - begin_).count(), unit_);
  fmt::print(stderr, "{}{}{}", terminal_ ? "\r\x1b[K" : "", line, terminal_ ? "" : "\n");
  std::fflush(stderr);
  drawn_ = terminal_;
}

void Progress::clear() {
  if (drawn_) fmt::print(stderr, "\r\x1b[K");
  drawn_ = false;
}

}  // namespace af
