// Which source the next sequence comes from, so that after every n sequences source i has had w_i n of them, to within one.
//
// R. Tijdeman, "The chairman assignment problem", Discrete Math. 32 (1980): with k sources and x_i sequences of source i among
// the first n - 1, those may come next that lag, w_i n - x_i >= 1 / (2k - 2); of them the one whose deadline is nearest, the n at
// which its lag would pass the bound: smallest (x_i + 1 - 1 / (2k - 2)) / w_i. Then |x_i - w_i n| <= 1 - 1 / (2k - 2) for ever.
#pragma once
#include <cstdint>
#include <vector>

namespace af {

class Mixture {
 public:
  // Weights are divided by their sum; each must be finite and > 0 (InternalError: SequenceStream tells the user).
  // `taken`: sequences that each source has had since the mix was set.
  explicit Mixture(const std::vector<double>& weights, std::vector<std::int64_t> taken = {});

  std::size_t next();  // takes one sequence; its source
  const std::vector<std::int64_t>& taken() const { return taken_; }
  std::int64_t total() const { return total_; }

 private:
  // The shares as integers w_i 2^52, so that all comparisons are exact; they add up to shares_sum_.
  std::vector<std::int64_t> shares_, taken_;
  std::int64_t shares_sum_ = 0, total_ = 0;
};

}  // namespace af
