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
  const Plan plan = make_plan(config, 1);
  EXPECT_EQ(plan.dtype, DType::bf16);
  EXPECT_EQ(plan.parameters.total(), 30'532'122'624);
  ASSERT_EQ(plan.stages.size(), 2u);
  const StagePlan &one = plan.stages[0], &two = plan.stages[1];
  EXPECT_EQ(one.fullest.parameters.total(), 30'532'122'624 * 18);
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
  const ActivationMemory activations = activation_memory(config.model, config.stages[1].recompute, DType::bf16, whole_model(config.model, 2 * 131072, 2));
  EXPECT_EQ(two.fullest.activations.kept, activations.kept);
  EXPECT_EQ(plan.peak_bytes(), kProgramBytes + std::max(one.fullest.total(), two.fullest.total()));
  // Stage 1: a global batch of 128 and a micro-batch of 1 in 12 bytes a token on the device and 13 as they are read, 157 sequences read
  // ahead (64 MiB), cos and sin of 64 angles in fp32.
  EXPECT_EQ(one.fullest.inputs, std::int64_t(32768) * (129 * 12 + (129 + 157) * 13 + 2 * 64 * 4));
}

TEST(Plan, WhatAStageChanges) {
  const Plan plan = make_plan(parse_config(kRun, "run.yaml", {}), 1);
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
  const std::string report = describe_plan(config, make_plan(config, 1));
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
    const std::string report = describe_plan(config, make_plan(config, 1));
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

// Two layouts for the two stages: TP 4 x PP 4 with experts on 16 ranks, then CP 8 x DP 8.
const std::vector<std::string> kLayouts = {"stages.0.parallel.tensor_model_parallel_size=4", "stages.0.parallel.sequence_parallel=true",
                                           "stages.0.parallel.pipeline_model_parallel_size=4", "stages.0.parallel.expert_model_parallel_size=16",
                                           "stages.0.parallel.expert_tensor_parallel_size=1", "stages.1.parallel.context_parallel_size=8",
                                           "stages.1.parallel.expert_model_parallel_size=8"};

TEST(Plan, LeastRanks) {
  EXPECT_EQ(least_ranks(parse_config(kRun, "run.yaml", {})), 1);
  EXPECT_EQ(least_ranks(parse_config(kRun, "run.yaml", kLayouts)), 64);  // 4 pipeline stages of lcm(4, 16); the second stage's 8 divide it
  EXPECT_EQ(least_ranks(parse_config(kRun, "run.yaml", {"parallel.tensor_model_parallel_size=4", "parallel.sequence_parallel=true",
                                                         "parallel.pipeline_model_parallel_size=3", "parallel.expert_model_parallel_size=2",
                                                         "stages.1.parallel.pipeline_model_parallel_size=2"})), 48);  // experts on ETP 4 x EP 2 = 8, times 3 or 2
}

// 6 + 12 / d bytes per parameter of a rank in bf16: d = 8 for what all ranks have, 1 for experts of which each has an eighth.
TEST(Plan, SharesOfTheOptimizer) {
  const Config config = parse_config(kRun, "run.yaml", {"parallel.expert_model_parallel_size=8"});
  const Plan plan = make_plan(config, 8);
  const double experts = 48.0 * 128 * 3 * 2048 * 768, dense = 30'532'122'624 - experts;
  const RankMemory& r = plan.stages[0].fullest;
  EXPECT_EQ(double(r.parameter_count), dense + experts / 8);
  EXPECT_NEAR(double(r.parameters.total()), dense * (6 + 12.0 / 8) + experts / 8 * 18, 1e4);  // shares are padded
  EXPECT_EQ(plan.stages[0].micro_batches, 16);
  EXPECT_EQ(plan.peak_bytes(), kProgramBytes + kMpiBytes + std::max(plan.stages[0].bytes(), plan.stages[1].bytes()));
}

TEST(Plan, LayoutsPerStage) {
  const Config config = parse_config(kRun, "run.yaml", kLayouts);
  ASSERT_EQ(layout_problems(config, 64), std::vector<std::string>{});
  const Plan plan = make_plan(config, 64);
  const StagePlan &one = plan.stages[0], &two = plan.stages[1];
  EXPECT_EQ(one.layout.mesh, (MeshShape{4, 1, 4, 4, 1, 16, true}));
  EXPECT_EQ(two.layout.mesh, (MeshShape{1, 8, 8, 1, 1, 8, false}));
  EXPECT_EQ(one.micro_batches, 32);
  // 1F1B: the first of four pipeline stages holds four micro-batches; its 12 layers keep less than the last one's with the head.
  EXPECT_EQ(one.fullest.in_flight, 4);
  EXPECT_EQ(one.fullest.rank, 0);
  EXPECT_EQ(one.moving, 0);
  EXPECT_GT(two.moving, one.fullest.parameters.state() + two.fullest.parameters.state());
  // Idle at least as with equal stages, (P-1) / (M+P-1).
  double idle = 0;
  for (double share : one.simulation.bubble_share) idle += share / 4;
  EXPECT_GE(idle, 3.0 / (32 + 3));
  EXPECT_LE(idle, 0.25);
  EXPECT_GT(one.sent[Axis::tp], 0);
  EXPECT_GT(one.sent[Axis::pp], 0);
  EXPECT_EQ(one.sent[Axis::cp], 0);
  EXPECT_GT(two.sent[Axis::cp], 0);
  // PP: 3 boundaries there and back, bf16, of all tokens of the step.
  EXPECT_EQ(one.sent[Axis::pp], std::int64_t(3) * 2 * 2 * 2048 * 128 * 32768);
  const std::string report = describe_plan(config, plan);
  for (const char* part : {"on the fullest of 64 ranks", "TP 4, PP 4, CP 1, DP 4, EP 16", "Et*12|t*12|t*12|t*12L", "4 micro-batches in flight",
                           "fullest rank   0 (pipeline stage 0)", "the state moves to this layout", "sent           per iteration and rank: TP"})
    EXPECT_NE(report.find(part), std::string::npos) << part << "\nin\n" << report;
}

// The zero bubble's price under full recomputation: what was computed again stays for the weight gradients, which 1F1B does not have.
TEST(Plan, ZeroBubbleKeepsWhatWeightGradientsNeed) {
  std::vector<std::string> words = kLayouts;
  words.push_back("stages.0.recompute.recompute_granularity=full");
  const Plan plain = make_plan(parse_config(kRun, "run.yaml", words), 64);
  words.push_back("stages.0.pipeline.schedule=zero_bubble");
  const Plan zero = make_plan(parse_config(kRun, "run.yaml", words), 64);
  EXPECT_EQ(plain.stages[0].fullest.activations.delayed, 0);
  EXPECT_GT(zero.stages[0].fullest.activations.delayed, 10 * plain.stages[0].fullest.activations.kept);
  EXPECT_LT(zero.stages[0].simulation.makespan, plain.stages[0].simulation.makespan);
}

TEST(Plan, Drawing) {
  std::vector<std::string> words = kLayouts;
  words.push_back("stages.0.global_batch_size=16");
  const Config config = parse_config(kRun, "run.yaml", words);
  const Plan plan = make_plan(config, 64);
  EXPECT_EQ(&pipelined_stage(config, plan), &plan.stages[0]);
  const std::string text = small_drawing(plan.stages[0]);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4) << text;
  EXPECT_NE(text.find("B3"), std::string::npos) << text;
  EXPECT_THROW(pipelined_stage(config, plan, "stage2"), UserError);
  EXPECT_THROW(pipelined_stage(config, plan, "stage9"), UserError);
  EXPECT_EQ(small_drawing(make_plan(parse_config(kRun, "run.yaml", kLayouts), 64).stages[0]), "");  // 32 micro-batches are too wide
}

}  // namespace
}  // namespace af
