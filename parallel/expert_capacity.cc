#include "parallel/expert_capacity.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace af {

std::int64_t expert_capacity(std::int64_t tokens, std::int64_t top_k, std::int64_t num_experts, double factor) {
  return std::int64_t(std::ceil(double(tokens * top_k) * factor / double(num_experts)));
}

void drop_beyond_capacity(std::int64_t capacity, DropPolicy policy, std::int64_t num_experts, std::span<const std::int64_t> place, const Tensor& expert,
                          const Tensor& weight, const Tensor& within) {
  std::int64_t n = expert.numel(), top_k = place.empty() ? 1 : n / std::int64_t(place.size());
  const std::int32_t* e = expert.as<std::int32_t>();
  std::int32_t* out = within.as<std::int32_t>();
  auto weight_of = [&](std::int64_t i) {
    double w = weight.dtype == DType::f64 ? weight.as<double>()[i] : double(weight.as<float>()[i]);
    return w == w ? w : -1;  // NaN: an order all the same
  };
  std::vector<std::vector<std::int64_t>> choices(static_cast<std::size_t>(num_experts));
  for (std::int64_t i = 0; i < n; ++i) choices[std::size_t(out[i] = e[i])].push_back(i);
  auto before = [&](std::int64_t a, std::int64_t b) {
    double x = weight_of(a), y = weight_of(b);
    if (policy == DropPolicy::probs && x != y) return x > y;
    return place[std::size_t(a / top_k)] < place[std::size_t(b / top_k)];
  };
  for (std::vector<std::int64_t>& own : choices) {
    if (std::int64_t(own.size()) <= capacity) continue;
    std::nth_element(own.begin(), own.begin() + capacity, own.end(), before);
    for (auto i = own.begin() + capacity; i != own.end(); ++i) out[*i] = std::int32_t(num_experts);
  }
}

}  // namespace af
