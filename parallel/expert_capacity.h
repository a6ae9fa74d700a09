// A capacity of experts (optional; Megatron-LM's moe_expert_capacity_factor): how many choices of a micro-batch an expert takes, and which
// go beyond it. Those are dropped: they contribute nothing, and no gradient passes through their expert.
#pragma once
#include <cstdint>
#include <span>

#include "core/tensor.h"

namespace af {

enum class DropPolicy {
  probs,    // the choices with the largest weights stay
  position  // the first tokens stay
};

// ceil(tokens top_k / num_experts * factor).
std::int64_t expert_capacity(std::int64_t tokens, std::int64_t top_k, std::int64_t num_experts, double factor);

// expert, weight [n]: all choices of a micro-batch, k for each token; place [n / k]: where its tokens stand. within [n]: the expert, or
// num_experts where the choice is beyond its expert's capacity. Ties stay by place: the result does not depend on the order of the choices.
// Host memory.
void drop_beyond_capacity(std::int64_t capacity, DropPolicy policy, std::int64_t num_experts, std::span<const std::int64_t> place, const Tensor& expert,
                          const Tensor& weight, const Tensor& within);

}  // namespace af
