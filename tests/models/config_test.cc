// Presets and checks of the model's description.
#include "models/config.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace af {
namespace {

TEST(ModelConfig, PresetsAreRight) {
  for (const std::string& name : model_preset_names()) EXPECT_EQ(problems(model_preset(name)), std::vector<std::string>{}) << name;
  const ModelConfig c = model_preset("qwen3_30b_a3b");
  EXPECT_EQ(c.qkv_rows(), 5120);
  EXPECT_EQ(c.max_position_embeddings, 32768);
  EXPECT_EQ(c.rope.theta, 1e6);
  EXPECT_TRUE(c.norm_topk_prob);
  EXPECT_FALSE(c.tie_word_embeddings);
}

TEST(ModelConfig, UnknownPresetNamesTheNearest) {
  try {
    model_preset("qwen3_30b");
    FAIL();
  } catch (const UserError& e) {
    EXPECT_NE(std::string(e.what()).find("did you mean qwen3_"), std::string::npos) << e.what();
  }
}

TEST(ModelConfig, MoeLayersAsInTransformers) {
  ModelConfig c = model_preset("tiny_moe");
  c.num_hidden_layers = 6;
  c.decoder_sparse_step = 2;
  c.mlp_only_layers = {3};
  std::string moe;
  for (int i = 0; i < 6; ++i) moe += c.is_moe_layer(i) ? 'M' : '-';
  EXPECT_EQ(moe, "-M---M");  // (i + 1) % 2 == 0, without 3
  c.num_experts = 0;
  for (int i = 0; i < 6; ++i) EXPECT_FALSE(c.is_moe_layer(i));
}

YarnScaling yarn(double factor, std::int64_t original, double beta_fast = 32, double beta_slow = 1) {
  YarnScaling y;
  y.factor = factor;
  y.original_max_position_embeddings = original;
  y.beta_fast = beta_fast;
  y.beta_slow = beta_slow;
  return y;
}

// Each damage gives exactly one message, which begins with the field.
TEST(ModelConfig, ProblemsNameTheField) {
  using Damage = void (*)(ModelConfig&);
  const std::pair<const char*, Damage> damages[] = {
      {"model_type", [](ModelConfig& c) { c.model_type = "llama"; }},
      {"model_type", [](ModelConfig& c) { c.model_type = "qwen3"; }},  // with experts
      {"vocab_size", [](ModelConfig& c) { c.vocab_size = 0; }},
      {"hidden_size", [](ModelConfig& c) { c.hidden_size = std::int64_t(1) << 31; }},
      {"num_attention_heads", [](ModelConfig& c) { c.num_key_value_heads = 3; }},
      {"head_dim", [](ModelConfig& c) { c.head_dim = 33; }},
      {"rms_norm_eps", [](ModelConfig& c) { c.rms_norm_eps = 0; }},
      {"initializer_range", [](ModelConfig& c) { c.initializer_range = -1; }},
      {"num_experts", [](ModelConfig& c) { c.num_experts = -1; }},
      {"num_experts_per_tok", [](ModelConfig& c) { c.num_experts_per_tok = 9; }},
      {"num_experts_per_tok", [](ModelConfig& c) { c.num_experts_per_tok = 0; }},
      {"moe_intermediate_size", [](ModelConfig& c) { c.moe_intermediate_size = 0; }},
      {"decoder_sparse_step", [](ModelConfig& c) { c.decoder_sparse_step = 0; }},
      {"mlp_only_layers", [](ModelConfig& c) { c.mlp_only_layers = {4}; }},
      {"intermediate_size", [](ModelConfig& c) { c.mlp_only_layers = {0}, c.intermediate_size = 0; }},
      {"rope_theta", [](ModelConfig& c) { c.rope.theta = 1; }},
      {"rope_scaling.factor", [](ModelConfig& c) { c.rope.yarn = yarn(0.5, 1024); }},
      {"rope_scaling.original_max_position_embeddings", [](ModelConfig& c) { c.rope.yarn = yarn(4, 0); }},
      {"rope_scaling", [](ModelConfig& c) { c.rope.yarn = yarn(4, 1024, 1, 32); }},
  };
  for (const auto& [field, damage] : damages) {
    ModelConfig c = model_preset("tiny_moe");
    damage(c);
    const std::vector<std::string> found = problems(c);
    ASSERT_EQ(found.size(), 1u) << field;
    EXPECT_TRUE(found[0].starts_with(field)) << found[0];
  }
}

}  // namespace
}  // namespace af
