// Random choices of one sample: numbers 0, 1, 2, ... of a stream (core/random.h), so that a sample depends on the seed and
// its number alone.
#pragma once
#include <utility>
#include <vector>

#include "core/random.h"

namespace af {

class Dice {
 public:
  Dice(std::uint64_t seed, std::uint64_t stream) : seed_(seed), stream_(stream) {}
  std::size_t below(std::size_t n) { return std::size_t(random_below(seed_, stream_, next_++, n)); }
  int between(int least, int most) { return least + int(below(std::size_t(most - least + 1))); }
  std::size_t other_than(std::size_t n, std::size_t i) {  // one of n that is not i
    const std::size_t j = below(n - 1);
    return j + (j >= i);
  }
  bool chance(double p) { return random_uniform(seed_, stream_, next_++) < p; }
  std::uint64_t bits() { return random_bits(seed_, stream_, next_++); }
  template <class Container>
  decltype(auto) pick(const Container& from) {
    return from[below(from.size())];
  }
  template <class T>
  void shuffle(std::vector<T>& what) {
    for (std::size_t i = what.size(); i > 1; --i) std::swap(what[i - 1], what[below(i)]);
  }

 private:
  std::uint64_t seed_, stream_, next_ = 0;
};

}  // namespace af
