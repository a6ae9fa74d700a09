// Damaged files for every reader: an error message, never a crash, a hang or damage that is not seen.
//   fuzz_readers --target NAME --count N --seed S     NAME: one of the targets, or all (the default)
//   fuzz_readers --target NAME --seed S --only I      mutation I alone, in this process; its files stay in ./fuzz_NAME_I
// Mutations run in child processes, so that one which dies is one failure. Allowed: a UserError that names the file; or a
// result that keeps the target's rule (target.h). Not allowed: a signal, a sanitizer's report, any other exception, more than
// kSeconds or kMegabytes for a file of at most 1 MB. Before the targets the runner itself is tested: readers that crash, hang,
// take memory, and lie must each be caught.
#include <fmt/format.h>
#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "core/error.h"
#include "tests/fuzz/runner.h"

// The first report ends the process; HDF5 is free to ask for too much memory and to be refused; it also loses some on damaged files.
extern "C" const char* __asan_default_options() {
  return "allocator_may_return_null=1:max_allocation_size_mb=1024:detect_leaks=0:exitcode=99:quarantine_size_mb=16";
}
extern "C" const char* __ubsan_default_options() { return "halt_on_error=1:print_stacktrace=1"; }

namespace af::fuzz {
namespace {

namespace fs = std::filesystem;
constexpr unsigned kSeconds = 10;
Target planted(const std::string& name, std::function<std::string(const std::string&)> read) {
  Target t;
  t.name = name;
  t.corpus = {{{"x", std::string(100, 'x')}}};
  t.exact = name == "planted silence";
  t.read = std::move(read);
  return t;
}

// Readers that fail where the damage begins with a certain byte; every one must be caught. Returns how many were not.
int test_runner() {
  const auto damaged = [](const std::string& folder) { return read_files(folder)["x"] != std::string(100, 'x'); };
  const std::vector<Target> targets = {
      planted("planted crash", [=](const std::string& f) { return damaged(f) ? (std::raise(SIGSEGV), "") : "whole"; }),
      planted("planted hang",
              [=](const std::string& f) {
                for (std::atomic<bool> on = damaged(f); on;) {
                }
                return "whole";
              }),
      planted("planted hunger",
              [=](const std::string& f) {
                if (damaged(f)) {
                  for (int i = 0; i < 3; ++i) {
                    const std::size_t size = std::size_t(kMegabytes) / 2 << 20;
                    std::unique_ptr<char[]> memory(new char[size]);
                    for (std::size_t at = 0; at < size; at += 4096) const_cast<volatile char*>(memory.get())[at] = 1;
                    static std::vector<std::unique_ptr<char[]>> kept;
                    kept.push_back(std::move(memory));
                  }
                }
                return "whole";
              }),
      planted("planted silence", [](const std::string& f) { return read_files(f)["x"]; }),
      planted("planted check", [=](const std::string& f) { return AF_CHECK(!damaged(f), "a check fails"), "whole"; }),
      planted("planted murmur", [=](const std::string& f) { return damaged(f) ? throw UserError("something is wrong") : "whole"; }),
  };
  int missed = 0;
  for (const Target& target : targets) {
    Run run(target, 1, 1);
    run.read_corpus();
    const Outcome outcome = run.run(2);
    if (outcome.failures.size() == 2) continue;
    fmt::print("{}: {} of 2 were caught\n", target.name, outcome.failures.size());
    ++missed;
  }
  fmt::print("{} of {} planted faults are caught\n", targets.size() - std::size_t(missed), targets.size());
  return missed;
}

// False where something failed.
bool fuzz(const Target& target, std::int64_t count, std::uint64_t seed) {
  const auto begin = std::chrono::steady_clock::now();
  Run run(target, seed, kSeconds);
  std::vector<Failure> failures;
  Outcome outcome;
  try {
    run.read_corpus();
    outcome = run.run(count);
    failures = outcome.failures;
    if (outcome.refused == 0) failures.push_back({-1, "nothing was refused"});
  } catch (const std::exception& error) {
    failures.push_back({-1, fmt::format("undamaged files: {}", error.what())});
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  fmt::print("{:<15} {:>6} refused, {:>5} read the same, {:>5} read as another valid file, {} failed ({:.1f} s): {}\n", target.name, outcome.refused,
             outcome.same, outcome.other, failures.size(), seconds, target.rule);
  for (const Failure& failure : failures)
    fmt::print("  --target {} --seed {} --only {}\n      {}\n", target.name, seed, failure.mutation, failure.what);
  std::fflush(stdout);
  return failures.empty();
}

int reproduce(const Target& target, std::uint64_t seed, std::int64_t mutation) {
  Run run(target, seed, kSeconds);
  run.read_corpus();
  std::string story;
  const std::string folder = fmt::format("fuzz_{}_{}", target.name, mutation);
  write_files(folder, run.files_of(mutation, story));
  fmt::print("{}: {}\n", folder, story);
  std::fflush(stdout);
  const std::string wrong = run.one(mutation);
  if (wrong.empty()) {
    try {
      fmt::print("read: {}\n", target.read(folder).substr(0, 2000));
    } catch (const UserError& error) {
      fmt::print("refused: {}\n", error.what());
    }
  }
  fmt::print("{}\n", wrong.empty() ? "as it should be" : wrong);
  return wrong.empty() ? 0 : 1;
}

int main_of(int argc, char** argv) {
  std::string name = "all";
  std::int64_t count = 200, only = -1;
  std::uint64_t seed = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i], value = argv[i + 1];
    if (option == "--target") {
      name = value;
    } else if (option == "--count") {
      count = std::stoll(value);
    } else if (option == "--seed") {
      seed = std::stoull(value);
    } else if (option == "--only") {
      only = std::stoll(value);
    } else {
      user_error("{}: unknown; there are --target, --count, --seed, --only", option);
    }
  }
  omp_set_num_threads(1);  // a forked child has no other threads
  std::vector<Target> targets = data_targets();
  for (Target& target : synthesis_targets()) targets.push_back(std::move(target));
  for (Target& target : launch_targets()) targets.push_back(std::move(target));
  targets.push_back(checkpoint_target());
  if (name != "all") {
    std::erase_if(targets, [&](const Target& target) { return target.name != name; });
    if (targets.empty()) user_error("{}: no such target", name);
  }
  if (only >= 0) return reproduce(targets.at(0), seed, only);
  fmt::print("seed {}, {} mutations of each\n", seed, count);
  int passed = 0, failed = 0;
  (test_runner() == 0 ? passed : failed)++;
  for (const Target& target : targets) (fuzz(target, count, seed) ? passed : failed)++;
  fmt::print("{} passed, {} failed, 0 skipped\n", passed, failed);
  return failed > 0;
}

}  // namespace

std::string scratch_folder() {
  static const std::string folder = [] {
    std::string pattern = (fs::temp_directory_path() / "af_fuzz_XXXXXX").string();
    AF_CHECK(::mkdtemp(pattern.data()), "no folder {}", pattern);
    return pattern;
  }();
  return folder;
}

Files read_files(const std::string& folder) {
  Files files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream file(entry.path(), std::ios::binary);
    files[fs::relative(entry.path(), folder).string()] = std::string(std::istreambuf_iterator<char>(file), {});
  }
  return files;
}

void write_files(const std::string& folder, const Files& files) {
  fs::remove_all(folder);
  for (const auto& [name, bytes] : files) {
    const fs::path path = fs::path(folder) / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
  }
}

}  // namespace af::fuzz

int main(int argc, char** argv) {
  int status = 2;
  try {
    status = af::fuzz::main_of(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
  }
  std::filesystem::remove_all(af::fuzz::scratch_folder());
  return status;
}
