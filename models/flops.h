// Parameters and floating-point operations of a model, by formula.
#pragma once
#include <cstdint>

#include "models/config.h"

namespace af {

struct ParameterCounts {
  std::int64_t embedding = 0;       // V H
  std::int64_t lm_head = 0;         // V H, 0 where tied to the embedding
  std::int64_t attention = 0;       // all layers: q, k, v, o
  std::int64_t dense_mlp = 0;       // all dense layers: 3 H F
  std::int64_t router = 0;          // all MoE layers: E H
  std::int64_t experts = 0;         // all MoE layers: E 3 H F
  std::int64_t active_experts = 0;  // k 3 H F: what one token passes through
  std::int64_t norms = 0;
  std::int64_t tensors = 0;  // published tensors (HF names)

  std::int64_t total() const { return embedding + lm_head + attention + dense_mlp + router + experts + norms; }
  std::int64_t active() const { return total() - experts + active_experts; }
};
ParameterCounts count_parameters(const ModelConfig& config);

// Of one forward and backward: 3 x 2 x multiply-adds of the matrix products, as Megatron counts "model FLOPs" (nothing for
// recomputation, softmax, norms and element-wise work).
struct ModelFlops {
  double projections = 0;  // qkv and o
  double attention = 0;    // Q K^T and P V over the causal half: 6 * layers * heads * head_dim * sum over documents of L^2
  double mlp = 0;          // dense layers, and the k experts of each token
  double router = 0;
  double lm_head = 0;
  double total() const { return projections + attention + mlp + router + lm_head; }
};
// `tokens` in packed documents whose squared lengths add up to `sum_squared_lengths`.
ModelFlops model_flops_by_part(const ModelConfig& config, double tokens, double sum_squared_lengths);
inline double model_flops(const ModelConfig& config, double tokens, double sum_squared_lengths) {
  return model_flops_by_part(config, tokens, sum_squared_lengths).total();
}

}  // namespace af
