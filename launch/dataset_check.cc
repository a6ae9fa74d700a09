#include "launch/dataset_check.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <new>

#include "core/error.h"
#include "data/token_dataset.h"

namespace af {
namespace {

constexpr int kAnswered = 0, kFailed = 1;

// The child's answer: its problems, each ending with a zero byte.
std::string answer_of(const std::string& path) {
  std::string answer;
  try {
    for (const std::string& problem : problems_of_dataset(path)) answer += problem + '\0';
  } catch (const UserError& error) {
    answer = error.what() + std::string(1, '\0');
  } catch (const std::bad_alloc&) {
    answer = fmt::format("{}: asks for more memory than there is: it is damaged", path) + '\0';
  }
  return answer;
}

[[noreturn]] void be_child(const std::string& path, int seconds, int out) {
  std::signal(SIGALRM, SIG_DFL);
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  if (const int null = ::open("/dev/null", O_WRONLY); null >= 0) ::dup2(null, STDERR_FILENO);  // the parent says what happened
  ::alarm(unsigned(seconds));
  int status = kFailed;
  try {
    const std::string answer = answer_of(path);
    std::size_t written = 0;
    while (written < answer.size()) {
      const ssize_t n = ::write(out, answer.data() + written, answer.size() - written);
      if (n < 0 && errno != EINTR) break;
      written += n > 0 ? std::size_t(n) : 0;
    }
    status = written == answer.size() ? kAnswered : kFailed;
  } catch (...) {
    status = kFailed;
  }
  ::_exit(status);  // nothing of the parent's is closed or written a second time
}

}  // namespace

std::vector<std::string> problems_in_child(const std::string& path, int seconds) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw InternalError(fmt::format("no pipe: {}", std::strerror(errno)));
  const pid_t child = ::fork();
  if (child == 0) be_child(path, seconds, ends[1]);
  ::close(ends[1]);
  if (child < 0) {
    ::close(ends[0]);
    throw InternalError(fmt::format("no child process: {}", std::strerror(errno)));
  }
  std::string answer;
  char buffer[4096];
  for (;;) {
    const ssize_t n = ::read(ends[0], buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    answer.append(buffer, std::size_t(n));
  }
  ::close(ends[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
    return {fmt::format("{}: could not be read within {} s: it is damaged, or the disk is slow", path, seconds)};
  if (WIFSIGNALED(status)) return {fmt::format("{}: is damaged so that HDF5's library crashed ({})", path, ::strsignal(WTERMSIG(status)))};
  if (WEXITSTATUS(status) != kAnswered) return {fmt::format("{}: is damaged so that reading it failed", path)};
  std::vector<std::string> problems;
  for (std::size_t begin = 0; begin < answer.size();) {
    const std::size_t end = answer.find('\0', begin);
    problems.push_back(answer.substr(begin, end - begin));
    begin = end + 1;
  }
  return problems;
}

int seconds_to_read(const std::string& path) {
  std::error_code error;
  const std::uintmax_t bytes = std::filesystem::file_size(path, error);
  return 60 + (error ? 0 : int(double(bytes) / 20e6));
}

}  // namespace af
