// The schedules against Megatron's figures and against its formulas' other ends.
#include "launch/lr_schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace af {
namespace {

LrConfig megatron_test(LrDecayStyle style) {
  LrConfig lr;
  lr.lr = 0.1;
  lr.min_lr = 0.001;
  lr.lr_warmup_init = 0.01;
  lr.lr_warmup_iters = 100;
  lr.lr_decay_style = style;
  return lr;
}
constexpr StageSteps kSteps{1000, 1};

TEST(LearningRate, MegatronsFigures) {
  EXPECT_NEAR(learning_rate(megatron_test(LrDecayStyle::linear), kSteps, 50), 0.055, 1e-5 * 0.055);
  EXPECT_NEAR(learning_rate(megatron_test(LrDecayStyle::linear), kSteps, 500), 0.056, 1e-5 * 0.056);
  const double cosine = 0.001 + 0.099 / 2 * (std::cos(400 * std::numbers::pi / 900) + 1);
  EXPECT_NEAR(learning_rate(megatron_test(LrDecayStyle::cosine), kSteps, 500), cosine, 1e-5 * cosine);
}

TEST(LearningRate, BeginsAndEndsWhereAsked) {
  for (LrDecayStyle style : {LrDecayStyle::linear, LrDecayStyle::cosine, LrDecayStyle::wsd}) {
    LrConfig lr = megatron_test(style);
    lr.lr_wsd_decay_iters = 200;
    EXPECT_EQ(learning_rate(lr, kSteps, 0), 0.01) << name_of(style);
    EXPECT_DOUBLE_EQ(learning_rate(lr, kSteps, 100), 0.1) << name_of(style);
    EXPECT_NEAR(learning_rate(lr, kSteps, 1000), 0.001, 1e-12) << name_of(style);
    EXPECT_EQ(learning_rate(lr, kSteps, 1001), 0.001) << name_of(style);
  }
  EXPECT_EQ(learning_rate(megatron_test(LrDecayStyle::constant), kSteps, 5000), 0.1);
}

TEST(LearningRate, InverseSquareRoot) {
  const LrConfig lr = megatron_test(LrDecayStyle::inverse_square_root);
  EXPECT_NEAR(learning_rate(lr, kSteps, 400), 0.1 * 10 / 20, 1e-12);
  EXPECT_NEAR(learning_rate(lr, kSteps, 1000), 0.1 * 10 / std::sqrt(1000), 1e-12);
  LrConfig floor = lr;
  floor.min_lr = 0.04;
  EXPECT_EQ(learning_rate(floor, kSteps, 900), 0.04);
  LrConfig cold = lr;  // without warm-up the first sample counts as 1
  cold.lr_warmup_iters.reset();
  EXPECT_EQ(learning_rate(cold, kSteps, 0), 0.1);
  EXPECT_NEAR(learning_rate(cold, kSteps, 4), 0.05, 1e-12);
}

TEST(LearningRate, WsdsLastPhase) {
  LrConfig lr = megatron_test(LrDecayStyle::wsd);
  lr.lr_wsd_decay_iters = 200;
  const auto half = [&](WsdDecayStyle style) {  // the share of lr - min_lr left in the middle of the last phase
    lr.lr_wsd_decay_style = style;
    EXPECT_EQ(learning_rate(lr, kSteps, 800), 0.1);
    return (learning_rate(lr, kSteps, 900) - 0.001) / 0.099;
  };
  EXPECT_NEAR(half(WsdDecayStyle::linear), 0.5, 1e-12);
  EXPECT_NEAR(half(WsdDecayStyle::cosine), 0.5, 1e-12);
  EXPECT_NEAR(half(WsdDecayStyle::exponential), 2 * std::sqrt(0.5) - 1, 1e-12);
  EXPECT_NEAR(half(WsdDecayStyle::minus_sqrt), 1 - std::sqrt(0.5), 1e-12);
}

// Counting samples: the batch size changes nothing for lengths in iterations; those in samples and shares are met exactly.
TEST(LearningRate, CountsSamples) {
  for (LrDecayStyle style : {LrDecayStyle::linear, LrDecayStyle::cosine, LrDecayStyle::wsd}) {
    LrConfig lr = megatron_test(style);
    lr.lr_wsd_decay_iters = 300;
    for (std::int64_t i = 0; i <= 1000; i += 37) {
      EXPECT_NEAR(learning_rate(lr, {1000, 32}, i), learning_rate(lr, kSteps, i), 1e-14) << name_of(style) << " " << i;
    }
  }
  LrConfig samples = megatron_test(LrDecayStyle::linear), share = samples;
  samples.lr_warmup_iters.reset();
  samples.lr_warmup_samples = 1000;  // 31.25 iterations of 32
  EXPECT_NEAR(learning_rate(samples, {1000, 32}, 25), 0.01 + 0.09 * 800 / 1000, 1e-14);
  EXPECT_NEAR(learning_rate(samples, {1000, 32}, 32), 0.001 + 0.099 * (1 - 24.0 / 31000), 1e-14);
  share.lr_warmup_iters.reset();
  share.lr_warmup_fraction = 0.0625;  // of 800 iterations, not of the stage's 1000
  share.lr_decay_iters = 800;
  EXPECT_NEAR(learning_rate(share, {1000, 32}, 25), 0.055, 1e-14);
  EXPECT_EQ(learning_rate(share, {1000, 32}, 801), 0.001);
}

TEST(WeightDecay, MegatronsFigure) {
  OptimizerConfig o;
  o.settings.weight_decay = 0;
  EXPECT_EQ(weight_decay(o, kSteps, 500), 0);
  o.end_weight_decay = 0.1;
  o.weight_decay_incr_style = OptimizerConfig::WeightDecayStyle::linear;
  EXPECT_NEAR(weight_decay(o, kSteps, 500), 0.05, 1e-5 * 0.05);
  EXPECT_EQ(weight_decay(o, kSteps, 2000), 0.1);
  o.weight_decay_incr_style = OptimizerConfig::WeightDecayStyle::cosine;
  EXPECT_NEAR(weight_decay(o, kSteps, 250), 0.1 * 0.5 * (1 - std::cos(std::numbers::pi / 4)), 1e-12);
}

}  // namespace
}  // namespace af
