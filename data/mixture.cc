#include "data/mixture.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace af {

Mixture::Mixture(const std::vector<double>& weights, std::vector<std::int64_t> taken) : taken_(std::move(taken)) {
  AF_CHECK(!weights.empty(), "a mix of no sources");
  if (taken_.empty()) taken_.resize(weights.size(), 0);
  AF_CHECK(taken_.size() == weights.size(), "{} counts for {} sources", taken_.size(), weights.size());
  double sum = 0;
  for (double weight : weights) {
    AF_CHECK(std::isfinite(weight) && weight > 0, "weight {}", weight);
    sum += weight;
  }
  for (double weight : weights) {
    shares_.push_back(std::max<std::int64_t>(1, std::llround(std::ldexp(weight / sum, 52))));
    shares_sum_ += shares_.back();
  }
  for (std::int64_t count : taken_) total_ += count;
}

std::size_t Mixture::next() {
  using Wide = __int128;  // 2^52 shares times 2^40 sequences times 2k
  const Wide n = ++total_, slack = shares_.size() > 1 ? Wide(2 * shares_.size() - 2) : 1;
  std::size_t best = shares_.size();
  for (std::size_t i = 0; i < shares_.size(); ++i) {
    if (shares_.size() > 1 && (shares_[i] * n - taken_[i] * Wide(shares_sum_)) * slack < shares_sum_) continue;  // does not lag enough
    // deadlines compared crosswise: (x_i + 1) slack - 1 over the share
    if (best == shares_.size() || ((taken_[i] + 1) * slack - 1) * shares_[best] < ((taken_[best] + 1) * slack - 1) * shares_[i]) {
      best = i;
    }
  }
  AF_CHECK(best < shares_.size(), "no source may come next after {} sequences", total_ - 1);
  ++taken_[best];
  return best;
}

}  // namespace af
