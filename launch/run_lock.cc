#include "launch/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <string_view>
#include <thread>

#include <fmt/chrono.h>
#include <fmt/format.h>

#include "core/error.h"
#include "data/file.h"

namespace af {
namespace {

std::string host() {
  char name[256] = "?";
  gethostname(name, sizeof(name) - 1);
  return name;
}

// Who holds it, as it wrote itself: "process 4711 on node7, since 2026-11-23 00:45:12".
std::string holder(int descriptor) {
  char text[400] = "";
  const ssize_t n = ::pread(descriptor, text, sizeof(text) - 1, 0);
  const std::string_view line(text, n > 0 ? std::size_t(n) : 0);
  return std::string(line.substr(0, line.find('\n')));
}

}  // namespace

RunLock::RunLock(const std::string& output_dir, const std::function<bool()>& stop) {
  make_folder(output_dir);
  const std::string path = output_dir + "/lock";
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) user_error("{}: cannot be written: {}", path, std::strerror(errno));
  const auto begin = std::chrono::steady_clock::now();
  for (bool said = false; ::flock(descriptor_, LOCK_EX | LOCK_NB) != 0; said = true) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return;  // this file system has no locks
    const std::string who = holder(descriptor_);
    const double patience = who.find(" on " + host() + ",") == who.npos ? kPatienceOtherHost : kPatience;
    const double waited = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (waited > patience || stop()) {
      ::close(descriptor_);
      user_error("{}: another run writes there ({}) and has not ended in {:.0f} s. Wait for it, stop it, or take another output_dir (or were the tasks of one job"
                 " each started as a run of its own, by srun without --mpi=pmix?)", output_dir, who, waited);
    }
    if (!said) {
      fmt::print("{}: another run writes there ({}); waiting {:.0f} s for its end\n", output_dir, who, patience);
      std::fflush(stdout);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  const std::string own = fmt::format("process {} on {}, since {:%Y-%m-%d %H:%M:%S}\n", getpid(), host(), fmt::localtime(std::time(nullptr)));
  if (::ftruncate(descriptor_, 0) != 0 || ::pwrite(descriptor_, own.data(), own.size(), 0) < 0) return;  // a full disk: it is locked all the same
}

RunLock::~RunLock() { ::close(descriptor_); }

}  // namespace af
