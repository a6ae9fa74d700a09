#include "models/config.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace af {

bool ModelConfig::is_moe_layer(std::int64_t layer) const {
  if (num_experts == 0 || (layer + 1) % decoder_sparse_step != 0) return false;
  return std::find(mlp_only_layers.begin(), mlp_only_layers.end(), layer) == mlp_only_layers.end();
}

namespace {

void check_sizes(const ModelConfig& c, std::vector<std::string>& out) {
  const std::pair<const char*, std::int64_t> sizes[] = {{"vocab_size", c.vocab_size},
                                                        {"hidden_size", c.hidden_size},
                                                        {"num_hidden_layers", c.num_hidden_layers},
                                                        {"num_attention_heads", c.num_attention_heads},
                                                        {"num_key_value_heads", c.num_key_value_heads},
                                                        {"head_dim", c.head_dim},
                                                        {"max_position_embeddings", c.max_position_embeddings}};
  for (const auto& [name, value] : sizes) {
    if (value < 1) out.push_back(fmt::format("{} is {}; it must be at least 1", name, value));
    if (value > INT32_MAX) out.push_back(fmt::format("{} is {}; it must be below 2^31", name, value));
  }
  if (c.num_key_value_heads > 0 && c.num_attention_heads % c.num_key_value_heads != 0) {
    out.push_back(
        fmt::format("num_attention_heads {} is not a multiple of num_key_value_heads {}: every key head serves the same number of query heads",
                    c.num_attention_heads, c.num_key_value_heads));
  }
  if (c.head_dim % 2 != 0) out.push_back(fmt::format("head_dim is {}; it must be even: RoPE turns pairs of dimensions", c.head_dim));
  if (!(c.rms_norm_eps > 0)) out.push_back(fmt::format("rms_norm_eps is {}; it must be above 0", c.rms_norm_eps));
  if (!(c.initializer_range >= 0)) out.push_back(fmt::format("initializer_range is {}; it must not be negative", c.initializer_range));
}

void check_mlps(const ModelConfig& c, std::vector<std::string>& out) {
  if (c.num_experts < 0) out.push_back(fmt::format("num_experts is {}; 0 means a dense model", c.num_experts));
  if (c.decoder_sparse_step < 1)
    out.push_back(fmt::format("decoder_sparse_step is {}; 1 makes every layer MoE, n every n-th", c.decoder_sparse_step));
  for (std::int64_t layer : c.mlp_only_layers) {
    if (layer < 0 || layer >= c.num_hidden_layers) {
      out.push_back(fmt::format("mlp_only_layers names layer {}; the layers are 0..{}", layer, c.num_hidden_layers - 1));
    }
  }
  if (c.model_type == "qwen3" && c.num_experts > 0) {
    out.push_back(fmt::format("model_type qwen3 is dense but num_experts is {}; MoE models are model_type qwen3_moe", c.num_experts));
  }
  if (c.decoder_sparse_step < 1 || c.num_experts < 0) return;
  bool any_moe = false, any_dense = false;
  for (std::int64_t i = 0; i < std::min<std::int64_t>(c.num_hidden_layers, 1 << 16); ++i) (c.is_moe_layer(i) ? any_moe : any_dense) = true;
  if (any_dense && c.intermediate_size < 1) {
    out.push_back(fmt::format("intermediate_size is {}; the dense layers need one of at least 1", c.intermediate_size));
  }
  if (any_moe && c.moe_intermediate_size < 1) {
    out.push_back(fmt::format("moe_intermediate_size is {}; the experts need one of at least 1", c.moe_intermediate_size));
  }
  if (any_moe && (c.num_experts_per_tok < 1 || c.num_experts_per_tok > c.num_experts)) {
    out.push_back(fmt::format("num_experts_per_tok is {}; it must be in 1..num_experts, {}", c.num_experts_per_tok, c.num_experts));
  }
}

ModelConfig qwen3(std::int64_t hidden, std::int64_t layers, std::int64_t heads, std::int64_t kv_heads, std::int64_t intermediate) {
  ModelConfig c;
  c.model_type = "qwen3";
  c.vocab_size = 151936;
  c.hidden_size = hidden;
  c.num_hidden_layers = layers;
  c.num_attention_heads = heads;
  c.num_key_value_heads = kv_heads;
  c.head_dim = 128;
  c.intermediate_size = intermediate;
  c.max_position_embeddings = 32768;
  c.tie_word_embeddings = true;
  return c;
}

ModelConfig qwen3_moe(ModelConfig c, std::int64_t experts, std::int64_t top_k, std::int64_t moe_intermediate) {
  c.model_type = "qwen3_moe";
  c.tie_word_embeddings = false;
  c.num_experts = experts;
  c.num_experts_per_tok = top_k;
  c.moe_intermediate_size = moe_intermediate;
  return c;
}

ModelConfig tiny(ModelConfig c) {
  c.vocab_size = 288;  // 256 bytes and Qwen's 26 special tokens, padded
  c.head_dim = 32;
  return c;
}

struct Preset {
  const char* name;
  ModelConfig config;
};

std::vector<Preset> presets() {
  std::vector<Preset> list = {{"qwen3_0.6b", qwen3(1024, 28, 16, 8, 3072)},
                              {"qwen3_1.7b", qwen3(2048, 28, 16, 8, 6144)},
                              {"qwen3_4b", qwen3(2560, 36, 32, 8, 9728)},
                              {"qwen3_30b_a3b", qwen3_moe(qwen3(2048, 48, 32, 4, 6144), 128, 8, 768)},
                              {"qwen3_235b_a22b", qwen3_moe(qwen3(4096, 94, 64, 4, 12288), 128, 8, 1536)},
                              {"tiny_dense", tiny(qwen3(128, 4, 4, 2, 384))},
                              {"tiny_moe", tiny(qwen3_moe(qwen3(128, 4, 4, 2, 384), 8, 2, 96))}};
  list[4].config.max_position_embeddings = 40960;  // no base model of this size was published
  return list;
}

}  // namespace

std::vector<std::string> problems(const ModelConfig& c) {
  std::vector<std::string> out;
  if (c.model_type != "qwen3" && c.model_type != "qwen3_moe") {
    out.push_back(fmt::format("model_type is '{}'; this program knows qwen3 and qwen3_moe", c.model_type));
  }
  check_sizes(c, out);
  check_mlps(c, out);
  if (!(c.rope.theta > 1)) out.push_back(fmt::format("rope_theta is {}; it must be above 1 (Qwen3: 1e6)", c.rope.theta));
  if (c.rope.yarn) {
    const YarnScaling& y = *c.rope.yarn;
    if (!(y.factor >= 1)) out.push_back(fmt::format("rope_scaling.factor is {}; it is target length / original length, at least 1", y.factor));
    if (y.original_max_position_embeddings < 1) {
      out.push_back(fmt::format("rope_scaling.original_max_position_embeddings is {}; it is the length trained before (Qwen3: 32768)",
                                y.original_max_position_embeddings));
    }
    if (!(y.beta_slow > 0 && y.beta_fast > y.beta_slow)) {
      out.push_back(fmt::format("rope_scaling: beta_fast {} must be above beta_slow {}, both above 0 (usual: 32 and 1)", y.beta_fast, y.beta_slow));
    }
    if (y.attention_factor && !(*y.attention_factor > 0)) {
      out.push_back(fmt::format("rope_scaling.attention_factor is {}; it must be above 0", *y.attention_factor));
    }
  }
  return out;
}

ModelConfig model_preset(const std::string& name) {
  for (const Preset& preset : presets()) {
    if (name == preset.name) return preset.config;
  }
  std::string near = nearest(name, model_preset_names()), all = fmt::format("{}", fmt::join(model_preset_names(), ", "));
  user_error("no preset is called '{}'{}; there are {}", name, near.empty() ? "" : " (did you mean " + near + "?)", all);
}

std::vector<std::string> model_preset_names() {
  std::vector<std::string> names;
  for (const Preset& preset : presets()) names.emplace_back(preset.name);
  return names;
}

}  // namespace af
