// The Qwen3 family (dense and MoE) as its Hugging Face config.json describes it; names are config.json's.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/ops/rope.h"

namespace af {

struct ModelConfig {
  std::string model_type = "qwen3_moe";        // or qwen3
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;                   // need not be hidden_size / num_attention_heads
  std::int64_t intermediate_size = 0;          // dense layers
  std::int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  RopeSettings rope;                           // rope_theta, rope_scaling

  // MoE (num_experts == 0: a dense model)
  std::int64_t num_experts = 0;
  std::int64_t num_experts_per_tok = 0;
  std::int64_t moe_intermediate_size = 0;
  std::int64_t decoder_sparse_step = 1;
  std::vector<std::int64_t> mlp_only_layers;
  bool norm_topk_prob = true;
  double router_aux_loss_coef = 0.001;         // kept for export; training uses moe.moe_aux_loss_coeff

  // transformers: MoE where not in mlp_only_layers and (i + 1) % decoder_sparse_step == 0.
  bool is_moe_layer(std::int64_t layer) const;
  std::int64_t qkv_rows() const { return (num_attention_heads + 2 * num_key_value_heads) * head_dim; }
};

// What is wrong with it, one message each naming the field and what would be right; empty: nothing.
std::vector<std::string> problems(const ModelConfig& config);

// qwen3_0.6b, qwen3_1.7b, qwen3_4b, qwen3_30b_a3b, qwen3_235b_a22b (the base models' published config.json), and
// tiny ones for trying things: tiny_dense, tiny_moe. nullptr-free: an unknown name throws UserError with the nearest one.
ModelConfig model_preset(const std::string& name);
std::vector<std::string> model_preset_names();

}  // namespace af
