#include "models/flops.h"

namespace af {
namespace {

std::int64_t count_moe_layers(const ModelConfig& c) {
  std::int64_t n = 0;
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) n += c.is_moe_layer(i);
  return n;
}

}  // namespace

ParameterCounts count_parameters(const ModelConfig& c) {
  const std::int64_t layers = c.num_hidden_layers, moe = count_moe_layers(c), dense = layers - moe, h = c.hidden_size, d = c.head_dim;
  const std::int64_t expert = 3 * h * c.moe_intermediate_size;
  ParameterCounts n;
  n.embedding = c.vocab_size * h;
  n.lm_head = c.tie_word_embeddings ? 0 : c.vocab_size * h;
  n.attention = layers * (c.qkv_rows() * h + c.num_attention_heads * d * h);
  n.dense_mlp = dense * 3 * h * c.intermediate_size;
  n.router = moe * c.num_experts * h;
  n.experts = moe * c.num_experts * expert;
  n.active_experts = moe * c.num_experts_per_tok * expert;
  n.norms = layers * (2 * h + 2 * d) + h;  // before attention and MLP, of q and k; the final one
  n.tensors = 2 + (c.tie_word_embeddings ? 0 : 1) + layers * 8 + dense * 3 + moe * (1 + 3 * c.num_experts);
  return n;
}

ModelFlops model_flops_by_part(const ModelConfig& c, double tokens, double sum_squared_lengths) {
  const double layers = double(c.num_hidden_layers), moe = double(count_moe_layers(c)), h = double(c.hidden_size);
  const double heads = double(c.num_attention_heads * c.head_dim), multiply_adds = 6 * tokens;
  ModelFlops f;
  f.projections = multiply_adds * layers * h * (double(c.qkv_rows()) + heads);
  f.attention = 6 * layers * heads * sum_squared_lengths;  // 3 x 2 x two products x L^2 / 2
  f.mlp = multiply_adds * 3 * h * ((layers - moe) * double(c.intermediate_size) + moe * double(c.num_experts_per_tok * c.moe_intermediate_size));
  f.router = multiply_adds * moe * h * double(c.num_experts);
  f.lm_head = multiply_adds * h * double(c.vocab_size);
  return f;
}

}  // namespace af
