// Damage done to files: that of disks and networks (bits, blocks, lengths) and that of hands (numbers, nesting, names).
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace af::fuzz {

using Files = std::map<std::string, std::string>;  // of a folder: name -> bytes

// SplitMix64: every mutation has its own, from the run's seed, the target's name and the mutation's number.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t bits();
  std::size_t below(std::size_t n) { return n == 0 ? 0 : std::size_t(bits() % n); }
  bool one_in(std::size_t n) { return below(n) == 0; }
  template <class T>
  const T& of(const std::vector<T>& list) {
    return list[below(list.size())];
  }

 private:
  std::uint64_t state_;
};

// What the bytes of a file mean, for the mutations that know.
enum class Syntax { bytes, json, yaml, safetensors, lines, hdf5, hdf5_checksummed };  // the last: with checksums put right again

Syntax syntax_of(const std::string& file_name);

// One to four changes to one of the files of `sample`; now and then a file is lost or has another's contents. `others`: samples
// to take pieces of. `story` says what was done.
Files mutated(Random& random, const Files& sample, const std::vector<Files>& others, bool fix_checksums, std::string& story);

}  // namespace af::fuzz
