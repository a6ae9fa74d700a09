#include "tests/fuzz/runner.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "core/random.h"

namespace af::fuzz {
namespace {

namespace fs = std::filesystem;
constexpr std::int64_t kBatch = 250;        // mutations of a process
constexpr std::int64_t kLibraryBatch = 20;  // of one that calls HDF5, which keeps state of files that it failed to open
constexpr std::size_t kMostFailures = 10;   // of a target: then it ends

long peak_megabytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss / 1024;
}

}  // namespace

// What children tell, in memory that they share with their parent.
struct Run::Shared {
  std::int64_t at;  // the mutation under way
  std::int64_t refused, same, other;
  std::size_t failures;
  struct {
    std::int64_t mutation;
    char what[600];
  } failure[kMostFailures];
};

Run::Run(const Target& target, std::uint64_t seed, unsigned seconds)
    : target_(target), seed_(seed), seconds_(seconds), folder_(scratch_folder() + "/" + target.name), report_(scratch_folder() + "/report") {
  void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  AF_CHECK(memory != MAP_FAILED, "no shared memory");
  shared_ = static_cast<Shared*>(memory);
}
Run::~Run() { ::munmap(shared_, sizeof(Shared)); }

Files Run::files_of(std::int64_t mutation, std::string& story) const {
  Random random(random_bits(seed_, hash_name(target_.name), std::uint64_t(mutation)));
  const Files& sample = random.of(target_.corpus);
  for (int attempt = 0;; ++attempt) {
    Files files = mutated(random, sample, target_.corpus, target_.fix_checksums, story);
    if (files != sample || attempt == 20) return files;  // zeros may be wiped with zeros
  }
}

void Run::read_corpus() {
  for (const Files& files : target_.corpus) {
    write_files(folder_, files);
    whole_.insert(target_.read(folder_));
  }
}

std::string Run::one(std::int64_t mutation) {
  std::string story;
  const Files files = files_of(mutation, story);
  // A folder of its own: HDF5 may take a file for the one before it that had the same inode.
  const std::string folder = target_.library ? fmt::format("{}/{}", folder_, mutation) : folder_;
  write_files(folder, files);
  const long before = peak_megabytes();
  std::string wrong;
  try {
    const std::string result = target_.read(folder);
    const bool same = whole_.contains(result);
    if (!same && target_.exact) wrong = "damage that was not seen";
    (same ? shared_->same : shared_->other)++;
  } catch (const UserError& error) {
    shared_->refused++;
    if (std::string(error.what()).find(folder_) == std::string::npos) wrong = fmt::format("the message names no file: {}", error.what());
  } catch (const SilentDamage& error) {
    wrong = fmt::format("a result that is not valid: {}", error.what());
  } catch (const std::exception& error) {
    wrong = fmt::format("an exception other than UserError: {}", error.what());
  }
  if (const long more = peak_megabytes() - before; wrong.empty() && more > kMegabytes) wrong = fmt::format("took {} MB of memory", more);
  return wrong.empty() ? "" : fmt::format("{}\n      {}", story, wrong);
}

Outcome Run::run(std::int64_t count) {
  const std::int64_t batch = target_.library ? kLibraryBatch : kBatch;
  Outcome out;
  for (std::int64_t next = 0; next < count && out.failures.size() < kMostFailures;) {
    shared_->failures = 0;
    const std::int64_t end = std::min(count, next + batch);
    next = run_child(next, end, out);
    for (std::size_t i = 0; i < shared_->failures; ++i) out.failures.push_back({shared_->failure[i].mutation, shared_->failure[i].what});
  }
  out.refused = shared_->refused, out.same = shared_->same, out.other = shared_->other;
  return out;
}

std::int64_t Run::run_child(std::int64_t begin, std::int64_t end, Outcome& out) {
  shared_->at = begin;
  fs::remove_all(folder_);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  AF_CHECK(child >= 0, "no child process");
  if (child == 0) be_child(begin, end);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return shared_->at;
  std::string story;
  files_of(shared_->at, story);
  std::string how = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? fmt::format("not done after {} s", seconds_)
                    : WIFSIGNALED(status)                              ? fmt::format("died: {}", ::strsignal(WTERMSIG(status)))
                                                                       : fmt::format("ended with status {}", WEXITSTATUS(status));
  out.failures.push_back({shared_->at, fmt::format("{}\n      {}\n{}", story, how, report())});
  return shared_->at + 1;
}

void Run::be_child(std::int64_t begin, std::int64_t end) {
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  if (const int file = ::open(report_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600); file >= 0) ::dup2(file, STDERR_FILENO);
  for (std::int64_t i = begin; i < end; ++i) {
    shared_->at = i;
    ::alarm(seconds_);
    const std::string wrong = one(i);
    ::alarm(0);
    if (wrong.empty()) continue;
    auto& failure = shared_->failure[shared_->failures++];
    failure.mutation = i;
    std::snprintf(failure.what, sizeof failure.what, "%s", wrong.c_str());
    if (shared_->failures == kMostFailures) ::_exit((shared_->at = end, 0));
  }
  shared_->at = end;
  ::_exit(0);
}

std::string Run::report() const {
  std::ifstream file(report_);
  std::string line, out;
  for (int lines = 0; lines < 14 && std::getline(file, line);) {
    const bool tells = line.find("ERROR") != line.npos || line.find("runtime error") != line.npos || line.find("    #") == 0 || lines == 0;
    if (tells) out += "      " + line.substr(0, 180) + "\n", ++lines;
  }
  return out;
}

}  // namespace af::fuzz
