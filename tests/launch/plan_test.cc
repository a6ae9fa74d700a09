// What --dry-run says, against hand counts.
#include "launch/plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "launch/config_yaml.h"

namespace af {
namespace {

const char* const kRun = R"(output_dir: runs/cpt
model: {preset: qwen3_30b_a3b}
runtime: {precision: bf16, peak_tflops: 400}
stages:
  - name: stage1
    seq_length: 32768
    train_tokens: 200e9
    global_batch_size: 128
    lr: {lr: 2e-5, min_lr: 2e-6, lr_warmup_fraction: 0.01}
    data: [{path: fas.h5, weight: 3}, {path: general.h5}]
  - name: stage2
    seq_length: 131072
    train_iters: 100
    micro_batch_size: 2
    global_batch_size: 32
    rope_theta: 5e6
    recompute: {recompute_granularity: full}
    lr: {lr: 2e-5, min_lr: 2e-6, lr_warmup_fraction: 0.01}
    data: [{path: has.h5, weight: 9}, {path: general.h5}]
)";

TEST(Plan, Arithmetic) {
  const Config config = parse_config(kRun, "run.yaml", {});
  const Plan plan = make_plan(config);
  EXPECT_EQ(plan.dtype, DType::bf16);
  EXPECT_EQ(plan.parameters.total(), 30'532'122'624);
  EXPECT_EQ(plan.memory.total(), 30'532'122'624 * 18);
  ASSERT_EQ(plan.stages.size(), 2u);
  const StagePlan &one = plan.stages[0], &two = plan.stages[1];
  EXPECT_EQ(one.iterations, 47683);  // 200e9 / (128 * 32768) = 47683.7
  EXPECT_EQ(one.sequences, 47683 * 128);
  EXPECT_EQ(one.tokens, std::int64_t(47683) * 128 * 32768);
  EXPECT_EQ(one.micro_batches, 128);
  EXPECT_NEAR(one.warmup_iterations, 476.83, 1e-9);
  EXPECT_NEAR(one.flops_per_token, 56.9e9, 0.05e9);
  EXPECT_EQ(one.flops, one.flops_per_token * double(one.tokens));
  EXPECT_EQ(two.iterations, 100);
  EXPECT_EQ(two.micro_batches, 16);
  EXPECT_NEAR(two.flops_per_token, 172.9e9, 0.05e9);
  const ActivationMemory activations = activation_memory(config.model, config.stages[1].recompute, DType::bf16, 2 * 131072, 2);
  EXPECT_EQ(two.activations.kept, activations.kept);
  EXPECT_EQ(plan.peak_bytes(), kProgramBytes + plan.memory.total() + std::max(one.bytes(), two.bytes()));
  // Stage 1: a global batch of 128 and a micro-batch of 1 in 12 bytes a token on the device and 13 as they are read, 157 sequences read
  // ahead (64 MiB), cos and sin of 64 angles in fp32.
  EXPECT_EQ(one.inputs, std::int64_t(32768) * (129 * 12 + (129 + 157) * 13 + 2 * 64 * 4));
}

TEST(Plan, WhatAStageChanges) {
  const Plan plan = make_plan(parse_config(kRun, "run.yaml", {}));
  EXPECT_TRUE(plan.stages[0].changes.empty());
  const std::vector<std::string> expected = {"seq_length: 32768 -> 131072",
                                             "train_tokens: 200000000000 -> none",
                                             "micro_batch_size: 1 -> 2",
                                             "global_batch_size: 128 -> 32",
                                             "data: fas 75%, general 25% -> has 90%, general 10%",
                                             "rope_theta: 1000000 -> 5000000",
                                             "recompute.recompute_granularity: none -> full",
                                             "train_iters: none -> 100",
                                             "recompute.recompute_method: none -> uniform",
                                             "recompute.recompute_num_layers: none -> 1"};
  std::vector<std::string> found = plan.stages[1].changes, sorted = expected;
  std::sort(found.begin(), found.end());
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(found, sorted);
}

// The figures reach the report, and the shapes in it add up to the model.
TEST(Plan, Report) {
  const Config config = parse_config(kRun, "run.yaml", {});
  const std::string report = describe_plan(config, make_plan(config));
  for (const char* part : {"parameters 30,532,122,624 in 18,867 tensors, active per token 3,353,032,704", "layers.*.mlp.experts.*.down_proj",
                           "[2048, 768]", "47,683 iterations, 6,103,424 sequences of 32,768, 199,996,997,632 tokens", "56.9 GFLOP per token",
                           "172.9 GFLOP per token", "warm-up 0 -> 2e-05 over 476.83 iterations, then cosine 2e-05 -> 2e-06 at iteration 47,683",
                           "rope_theta: 1000000 -> 5000000", "missing: run.yaml:10:19: there is no fas.h5"}) {
    EXPECT_NE(report.find(part), std::string::npos) << part << "\nin\n" << report;
  }
}

// Elements listed per kind of tensor add up to the parameter count, for every preset.
TEST(Plan, ShapesAddUp) {
  for (const std::string& name : model_preset_names()) {
    const Config config = parse_config(kRun, "run.yaml", {"model.preset=" + name});
    const std::string report = describe_plan(config, make_plan(config));
    std::int64_t sum = 0, tensors = 0;
    for (std::size_t at = 0; (at = report.find(" x ", at)) != std::string::npos; ++at) {
      const std::size_t end = report.find('\n', at), begin = report.rfind('\n', at) + 1;
      if (report.substr(begin, 2) != "  " || report.find('[', begin) > at) continue;
      std::string elements = report.substr(end - 18, 18);
      elements.erase(std::remove(elements.begin(), elements.end(), ','), elements.end());
      sum += std::stoll(elements);
      tensors += std::stoll(report.substr(at + 3, 6));
    }
    EXPECT_EQ(sum, count_parameters(config.model).total()) << name;
    EXPECT_EQ(tensors, count_parameters(config.model).tensors) << name;
  }
}

}  // namespace
}  // namespace af
