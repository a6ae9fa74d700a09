// Runs mutations in child processes and judges what the reader makes of them.
#pragma once
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "tests/fuzz/target.h"

namespace af::fuzz {

inline constexpr long kMegabytes = 1024;  // that a reader may take for a file of at most 1 MB

struct Failure {
  std::int64_t mutation;
  std::string what;
};

struct Outcome {
  std::int64_t refused = 0, same = 0, other = 0;
  std::vector<Failure> failures;
};

class Run {
 public:
  Run(const Target& target, std::uint64_t seed, unsigned seconds);  // seconds: that a mutation may take
  ~Run();
  Run(const Run&) = delete;

  Files files_of(std::int64_t mutation, std::string& story) const;
  // The undamaged files must be read: what they hold is what exact targets compare with.
  void read_corpus();
  // In this process. "" where all is well; else what was done and what is wrong.
  std::string one(std::int64_t mutation);
  // Mutations [0, count), in child processes; ends early after some failures.
  Outcome run(std::int64_t count);

 private:
  struct Shared;
  std::int64_t run_child(std::int64_t begin, std::int64_t end, Outcome& out);  // returns where to go on
  [[noreturn]] void be_child(std::int64_t begin, std::int64_t end);
  std::string report() const;  // the lines of a sanitizer's report that say what and where

  const Target& target_;
  std::uint64_t seed_;
  unsigned seconds_;
  std::string folder_, report_;
  std::set<std::string> whole_;
  Shared* shared_ = nullptr;
};

}  // namespace af::fuzz
