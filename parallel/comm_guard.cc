#include "parallel/comm_guard.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/error.h"
#include "parallel/comm_heartbeat.h"
#include "parallel/comm_operation.h"

namespace af::comm {
namespace {

std::string contents(const std::string& path) {
  std::string text;
  if (std::FILE* file = std::fopen(path.c_str(), "rb")) {
    char block[4096];
    for (std::size_t n; (n = std::fread(block, 1, sizeof(block), file)) > 0;) text.append(block, n);
    std::fclose(file);
  }
  return text;
}

// State ('T': stopped) and parent of a process, from "4711 (af_train) T 4700 ...": the name may hold anything.
std::pair<char, pid_t> state_of(const std::string& process) {
  const std::string stat = contents("/proc/" + process + "/stat");
  const std::size_t end = stat.rfind(") ");
  if (end == stat.npos || end + 4 > stat.size()) return {'?', 0};
  return {stat[end + 2], pid_t(std::atoi(stat.c_str() + end + 4))};
}

// Names in a folder that are numbers: of processes or threads.
std::vector<std::string> numbers_in(const std::string& folder) {
  std::vector<std::string> found;
  DIR* entries = opendir(folder.c_str());
  if (!entries) return found;
  while (const dirent* entry = readdir(entries))
    if (const std::string name = entry->d_name; name.find_first_not_of("0123456789") == name.npos) found.push_back(name);
  closedir(entries);
  return found;
}

// Processes that may be children of one: those that the kernel lists as its threads', or all where it lists none.
std::vector<std::string> children_of(pid_t parent) {
  std::vector<std::string> found;
  const std::string threads = fmt::format("/proc/{}/task", parent);
  for (const std::string& thread : numbers_in(threads)) {
    std::string listed = contents(threads + "/" + thread + "/children");
    for (std::size_t at; (at = listed.find(' ')) != listed.npos; listed.erase(0, at + 1)) found.push_back(listed.substr(0, at));
  }
  return found.empty() ? numbers_in("/proc") : found;
}

[[noreturn]] void end_process(const std::string& message) {
  char host[256] = "?";
  gethostname(host, sizeof(host) - 1);
  std::fprintf(stderr, "process %d (%s): %s\n", int(getpid()), host, message.c_str());
  std::fflush(stderr);
  _exit(kExitFailed);
}

}  // namespace

std::string stopped_ranks(pid_t parent) {
  std::string text;
  for (const std::string& name : children_of(parent)) {
    if (state_of(name) != std::pair('T', parent)) continue;
    const std::string environment = '\0' + contents("/proc/" + name + "/environ");
    std::string rank = "?";
    for (const char* variable : {"OMPI_COMM_WORLD_RANK=", "PMIX_RANK="})
      if (std::size_t at = environment.find('\0' + std::string(variable)); at != environment.npos && rank == "?")
        rank = environment.c_str() + at + 1 + std::string(variable).size();
    text += fmt::format("; rank {} (process {}) is stopped", rank, name);
  }
  return text;
}

Guard::Guard(double timeout_seconds, double heartbeat_seconds) : timeout_(timeout_seconds), heartbeat_(heartbeat_seconds), parent_(getppid()) {
  thread_ = std::thread([this] { watch(); });
}

Guard::~Guard() {
  {
    std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Guard::start(const char* what, double limit) {
  std::lock_guard lock(mutex_);
  what_ = what, limit_ = limit, waited_ = 0, last_ = looked_for_stopped_ = steady_ns(), stopped_looks_ = 0;
}

void Guard::begin(const char* what) { start(what, timeout_); }
void Guard::all_are_in(const char* what) { start(what, heartbeat_ > 0 ? heartbeat_ : timeout_); }
void Guard::end() { start(nullptr, 0); }

// No rank gives a sign of life to others yet, or any more: what this host's system says of them has to do.
void Guard::look_for_stopped_ranks(std::int64_t now) {
  constexpr int kLooks = 5;
  if (heartbeat_ <= 0 || double(now - looked_for_stopped_) * 1e-9 < heartbeat_ / kLooks) return;
  looked_for_stopped_ = now;
  const std::string stopped = stopped_ranks(parent_);
  stopped_looks_ = stopped.empty() ? 0 : stopped_looks_ + 1;
  if (stopped_looks_ >= kLooks) end_process(fmt::format("{} waits for a rank that shows no sign of life (heartbeat_seconds){}", what_, stopped));
}

void Guard::watch() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, std::chrono::milliseconds(50), [&] { return over_; })) {
    if (getppid() != parent_) end_process("what started this rank (mpirun, or its daemon on this host) has ended");
    if (!what_) continue;
    const std::int64_t now = steady_ns();
    look_for_stopped_ranks(now);
    waited_ += double(std::min(now - std::exchange(last_, now), Heartbeat::kMostPerLook)) * 1e-9;
    if (limit_ > 0 && waited_ > limit_)
      end_process(fmt::format("{} has not ended after {:.4g} s: other ranks did not come to it, or a host or the network to it is gone{}", what_, waited_,
                              stopped_ranks(parent_)));
  }
}

}  // namespace af::comm
