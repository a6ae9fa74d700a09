// Rotary position embedding tables (arXiv 2104.09864), plain or YaRN (arXiv 2309.00071, as in transformers' _compute_yarn_parameters).
#pragma once
#include <optional>
#include <vector>

#include "core/memory.h"

namespace af {

struct YarnScaling {
  double factor = 1;                                   // target length / original length
  std::int64_t original_max_position_embeddings = 0;   // 32768 for Qwen3
  double beta_fast = 32, beta_slow = 1;
  std::optional<double> attention_factor;              // default 0.1 ln(factor) + 1
  bool truncate = true;                                // the ramp begins and ends at whole dimensions
};
struct RopeSettings {
  double theta = 1e6;
  std::optional<YarnScaling> yarn;
};

std::vector<float> rope_inverse_frequencies(const RopeSettings& settings, int head_dim);  // [D/2], fp32 as transformers keeps them
double rope_attention_factor(const RopeSettings& settings);                               // what cos and sin are multiplied by

// Fills cos, sin [P, D/2] for positions 0..P-1. Angles are fp32 products, as in transformers.
void rope_tables(const Context& context, const RopeSettings& settings, const Tensor& cos, const Tensor& sin);

}  // namespace af
