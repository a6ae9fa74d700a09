// Parameter counts, FLOPs and memory against published figures, and against what the model really allocates.
#include "models/flops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "models/memory.h"
#include "tests/models/tiny.h"

namespace af {
namespace {

TEST(Parameters, PublishedCounts) {
  const std::pair<const char*, std::int64_t> totals[] = {{"qwen3_30b_a3b", 30'532'122'624},
                                                         {"qwen3_235b_a22b", 235'093'634'560},
                                                         {"qwen3_4b", 4'022'468'096},
                                                         {"qwen3_1.7b", 1'720'574'976},
                                                         {"qwen3_0.6b", 596'049'920}};
  for (const auto& [name, total] : totals) EXPECT_EQ(count_parameters(model_preset(name)).total(), total) << name;
  const ParameterCounts n = count_parameters(model_preset("qwen3_30b_a3b"));
  EXPECT_EQ(n.active(), 3'353'032'704);
  EXPECT_EQ(n.tensors, 18'867);
  EXPECT_EQ(2 * n.total(), 61'064'245'248);
  EXPECT_EQ(count_parameters(model_preset("qwen3_235b_a22b")).active(), 22'190'763'520);
  EXPECT_EQ(count_parameters(model_preset("qwen3_4b")).active(), count_parameters(model_preset("qwen3_4b")).total());
}

ModelConfig mixed_layers() {
  ModelConfig c = test::tiny_config();
  c.num_hidden_layers = 5;
  c.mlp_only_layers = {0};
  c.decoder_sparse_step = 2;
  return c;
}

// The formula against the parameters of the model itself.
TEST(Parameters, FormulaCountsTheModel) {
  ModelConfig tied = test::tiny_config(false);
  tied.tie_word_embeddings = true;
  for (const ModelConfig& c : {test::tiny_config(), test::tiny_config(false), tied, mixed_layers()}) {
    const Device device;
    ParameterSet set(device, DType::f32);
    Qwen3Model model(c, device, set);
    std::set<std::string> names;
    for (const Parameter& p : set.parameters()) {
      for (const Slab& slab : p.slabs) names.insert(slab.name);
    }
    EXPECT_EQ(count_parameters(c).total(), set.numel());
    EXPECT_EQ(count_parameters(c).tensors, std::int64_t(names.size()));
  }
}

TEST(Flops, PublishedCostPerToken) {
  const ModelConfig c = model_preset("qwen3_30b_a3b");
  struct Row {
    double length, gflop, attention_percent;
  };
  for (const Row& row : {Row{4096, 23.1, 21}, Row{32768, 56.9, 68}, Row{131072, 172.9, 89}}) {
    const ModelFlops f = model_flops_by_part(c, 1, row.length);  // a document of L tokens has L^2 / L per token
    EXPECT_EQ(std::round(f.total() * 1e-8) / 10, row.gflop);
    EXPECT_EQ(std::round(100 * f.attention / f.total()), row.attention_percent);
  }
}

TEST(Flops, GrowExactlyWithSquaredLengths) {
  for (const char* name : {"tiny_moe", "qwen3_30b_a3b"}) {
    const ModelConfig c = model_preset(name);
    const double tokens = 64, d = 1234;
    const double added = model_flops(c, tokens, 64 * 64 + d) - model_flops(c, tokens, 64 * 64);
    EXPECT_EQ(added, 6.0 * double(c.num_hidden_layers * c.num_attention_heads * c.head_dim) * d) << name;
  }
}

// 6 FLOPs per active weight and token: everything but norms and the embedding (a look-up).
TEST(Flops, SixPerActiveWeight) {
  for (const ModelConfig& c : {model_preset("qwen3_30b_a3b"), model_preset("tiny_dense"), mixed_layers()}) {
    const ParameterCounts n = count_parameters(c);
    const std::int64_t head = c.vocab_size * c.hidden_size;
    const std::int64_t weights = n.attention + n.dense_mlp + n.router + n.active_experts + head;
    EXPECT_EQ(model_flops(c, 1, 0), 6.0 * double(weights));
  }
}

TEST(Memory, BytesPerParameter) {
  const ModelConfig c = model_preset("qwen3_30b_a3b");
  EXPECT_EQ(parameter_memory(c, DType::bf16).total(), 30'532'122'624 * 18);
  EXPECT_EQ(parameter_memory(c, DType::f32).total(), 30'532'122'624 * 16);
  EXPECT_EQ(parameter_memory(c, DType::f64).total(), 30'532'122'624 * 32);
  EXPECT_EQ(parameter_memory(c, DType::bf16).values, 61'064'245'248);
}

// The formula against what the arenas really handed out, in every setting of recomputation.
TEST(Memory, ActivationsAreWhatTheModelKeeps) {
  using Granularity = RecomputeSettings::Granularity;
  std::vector<RecomputeSettings> settings(1);
  for (auto flag : {&RecomputeSettings::core_attn, &RecomputeSettings::layernorm, &RecomputeSettings::moe_act, &RecomputeSettings::mlp,
                    &RecomputeSettings::moe}) {
    RecomputeSettings one;
    one.granularity = Granularity::selective;
    one.*flag = true;
    settings.push_back(one);
  }
  for (auto method : {RecomputeSettings::Method::uniform, RecomputeSettings::Method::block}) {
    for (std::int64_t layers : {1, 2}) {
      RecomputeSettings full;
      full.granularity = Granularity::full;
      full.method = method;
      full.num_layers = layers;
      settings.push_back(full);
    }
  }
  const std::vector<std::int64_t> lengths(30, 51);
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (const ModelConfig& config : {mixed_layers(), test::tiny_config(false)}) {
      for (const RecomputeSettings& recompute : settings) {
        test::TinyModel t(config, dtype);
        t.recompute = recompute;
        const test::TinyBatch batch(lengths, config.vocab_size);
        t.forward_backward(batch);
        const ActivationMemory memory = activation_memory(config, recompute, dtype, whole_model(config, batch.size(), 2));
        EXPECT_EQ(memory.kept, std::int64_t(t.saved.keep.used()));
        EXPECT_EQ(memory.routed, std::int64_t(t.saved.routed.used()));
        EXPECT_EQ(memory.routed, std::int64_t(t.model.routed_bytes(batch.size(), recompute, t.balance)));
        const std::int64_t scratch = memory.scratch + batch.size() * config.hidden_size * std::int64_t(size_of(dtype));  // the gradient, by itself here
        // On top comes what the kernels take for themselves: packed panels per thread, whatever the tokens.
        EXPECT_LE(scratch, std::int64_t(t.scratch.peak()));
        EXPECT_GE(scratch + 512 * 1024, std::int64_t(t.scratch.peak()));
      }
    }
  }
}

}  // namespace
}  // namespace af
