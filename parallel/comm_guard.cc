#include "parallel/comm_guard.h"

#include <dirent.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include <fmt/format.h>

#include "core/error.h"
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
  DIR* processes = opendir("/proc");
  if (!processes) return text;
  while (const dirent* entry = readdir(processes)) {
    const std::string name = entry->d_name;
    if (name.find_first_not_of("0123456789") != name.npos || state_of(name) != std::pair('T', parent)) continue;
    const std::string environment = '\0' + contents("/proc/" + name + "/environ");
    std::string rank = "?";
    for (const char* variable : {"OMPI_COMM_WORLD_RANK=", "PMIX_RANK="})
      if (std::size_t at = environment.find('\0' + std::string(variable)); at != environment.npos && rank == "?")
        rank = environment.c_str() + at + 1 + std::string(variable).size();
    text += fmt::format("; rank {} (process {}) is stopped", rank, name);
  }
  closedir(processes);
  return text;
}

Guard::Guard(double timeout_seconds) : timeout_(timeout_seconds), parent_(getppid()) {
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

void Guard::begin(const char* what) {
  std::lock_guard lock(mutex_);
  what_ = what, begun_ = steady_ns();
}

void Guard::end() { begin(nullptr); }

void Guard::watch() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, std::chrono::milliseconds(50), [&] { return over_; })) {
    if (getppid() != parent_) end_process("what started this rank (mpirun, or its daemon on this host) has ended");
    if (const double seconds = double(steady_ns() - begun_) * 1e-9; what_ && timeout_ > 0 && seconds > timeout_)
      end_process(fmt::format("{} has not ended after {:.4g} s: other ranks did not come to it{}", what_, seconds, stopped_ranks(parent_)));
  }
}

}  // namespace af::comm
