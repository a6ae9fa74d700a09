#include "launch/stop.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstring>

#include "core/error.h"

namespace af {
namespace {

// A handler has nothing else to look at. It is on one thread at a time: the signals block each other.
volatile sig_atomic_t first_signal = 0, may_speak = 0;
volatile std::int64_t first_at = 0;  // ms
static_assert(sizeof(first_at) == sizeof(void*), "read and written at once");

constexpr std::int64_t kSameRequest = 1000;  // ms

std::int64_t milliseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

extern "C" void on_stop_signal(int signal) {
  if (first_signal == 0) {
    first_at = milliseconds();
    first_signal = signal;
    return;
  }
  if (milliseconds() - first_at < kSameRequest) return;
  static const char text[] = "asked to stop a second time: ended without saving\n";
  if (may_speak && write(STDERR_FILENO, text, sizeof(text) - 1) < 0) _exit(kExitFailed);
  _exit(kExitRequeue);
}

}  // namespace

void catch_stop_signals(bool speaks) {
  may_speak = speaks;
  struct sigaction action;
  std::memset(&action, 0, sizeof(action));
  action.sa_handler = on_stop_signal;
  action.sa_flags = SA_RESTART;
  for (int signal : {SIGTERM, SIGUSR1, SIGINT}) sigaddset(&action.sa_mask, signal);
  for (int signal : {SIGTERM, SIGUSR1, SIGINT}) AF_CHECK(sigaction(signal, &action, nullptr) == 0, "sigaction: {}", std::strerror(errno));
}

int stop_signal() { return first_signal; }

std::string stop_reason(int code) {
  switch (code) {
    case kTimeIsUp: return "the time limit";
    case SIGTERM: return "SIGTERM";
    case SIGUSR1: return "SIGUSR1";
    case SIGINT: return "SIGINT";
  }
  return "signal " + std::to_string(code);
}

double duration_seconds(const std::string& option, const std::string& text) {
  const std::string units = "dhms";
  const double seconds[] = {86400, 3600, 60, 1};
  double sum = 0;
  std::size_t at = 0, least_unit = 0;  // units come in this order, each once
  bool good = !text.empty() && text.size() < 20;
  while (good && at < text.size()) {
    double number = 0;
    const std::size_t begin = at;
    while (at < text.size() && std::isdigit(static_cast<unsigned char>(text[at]))) number = 10 * number + (text[at++] - '0');
    const std::size_t unit = at < text.size() ? units.find(text[at++]) : begin == 0 ? 3 : std::string::npos;
    good = at > begin && std::isdigit(static_cast<unsigned char>(text[begin])) && unit != std::string::npos && unit >= least_unit;
    if (good) sum += number * seconds[unit], least_unit = unit + 1;
  }
  if (!good || sum <= 0) user_error("{} {}: expected a time such as 3h30m, 90s or 1d12h", option, text);
  return sum;
}

void TimeLimit::begin_stage(double tokens) {
  if (tokens_ > 0) step_ *= tokens / tokens_;
  tokens_ = tokens;
}

void TimeLimit::stepped(double seconds) { step_ = std::max(seconds, 0.9 * step_); }  // a long one counts for some time

bool TimeLimit::up(Clock::time_point now, Next next) const {
  if (end_ == Clock::time_point::max()) return false;
  const double left = std::chrono::duration<double>(end_ - now).count();
  return left < 1.5 * ((next == Next::step ? step_ : 0) + save_) + kMargin;
}

}  // namespace af
