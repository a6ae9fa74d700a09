// What must not change a bit: recomputation, the number of threads; and what must change nothing but rounding: packing, micro-batches.
#include <gtest/gtest.h>

#include <cstring>

#include "tests/models/tiny.h"

namespace af::test {
namespace {

const std::vector<std::int64_t> kLengths = {5, 1, 6, 3, 9};

std::vector<char> bits(const Tensor& t) {
  const char* p = static_cast<const char*>(t.data);
  return {p, p + t.bytes()};
}

std::vector<char> gradients_after(const ModelConfig& config, DType dtype, const RecomputeSettings& recompute, int threads, double* loss, double* balance) {
  TinyModel m(config, dtype, threads);
  m.recompute = recompute;
  m.balance = {BalanceType::global_aux_loss, 0.1, 0.01};
  TinyBatch batch(kLengths, config.vocab_size);
  *loss = m.forward_backward(batch) + m.forward_backward(batch);  // the second time with warm arenas
  *balance = 0;
  for (RouterStatistics& s : m.model.router_statistics()) *balance += s.balance_loss_sum + s.z_loss_sum + double(s.tokens);
  return bits(m.set.gradients());
}

class Recomputation : public testing::TestWithParam<DType> {};

TEST_P(Recomputation, IsBitEqual) {
  using Granularity = RecomputeSettings::Granularity;
  using Method = RecomputeSettings::Method;
  std::vector<std::pair<std::string, RecomputeSettings>> settings;
  auto selective = [&](const std::string& name, bool RecomputeSettings::*member) {
    RecomputeSettings r;
    r.granularity = Granularity::selective;
    r.*member = true;
    settings.emplace_back(name, r);
  };
  selective("core_attn", &RecomputeSettings::core_attn);
  selective("layernorm", &RecomputeSettings::layernorm);
  selective("moe_act", &RecomputeSettings::moe_act);
  selective("mlp", &RecomputeSettings::mlp);
  selective("moe", &RecomputeSettings::moe);
  RecomputeSettings all;
  all.granularity = Granularity::selective;
  all.core_attn = all.layernorm = all.moe_act = all.mlp = all.moe = true;
  settings.emplace_back("all modules", all);
  for (Method method : {Method::uniform, Method::block})
    for (std::int64_t n : {1, 2, 3}) {
      RecomputeSettings r;
      r.granularity = Granularity::full;
      r.method = method;
      r.num_layers = n;
      settings.emplace_back("full", r);
    }
  ModelConfig config = tiny_config();
  double loss0, loss, balance0, balance;
  std::vector<char> reference = gradients_after(config, GetParam(), {}, 1, &loss0, &balance0);
  for (const auto& [name, r] : settings) {
    std::vector<char> other = gradients_after(config, GetParam(), r, 1, &loss, &balance);
    EXPECT_EQ(std::memcmp(reference.data(), other.data(), reference.size()), 0) << name;
    EXPECT_EQ(loss, loss0) << name;
    EXPECT_EQ(balance, balance0) << name << ": a loss was counted twice";
  }
}

TEST_P(Recomputation, AndThreadsAreBitEqual) {
  ModelConfig config = tiny_config();
  double loss0, loss, balance0, balance;
  std::vector<char> reference = gradients_after(config, GetParam(), {}, 1, &loss0, &balance0);
  for (int threads : {2, 3}) {
    EXPECT_TRUE(reference == gradients_after(config, GetParam(), {}, threads, &loss, &balance)) << threads;
    EXPECT_EQ(loss, loss0);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Recomputation, testing::Values(DType::f32, DType::bf16, DType::f64));

TEST(Recomputation, KeepsLess) {
  ModelConfig config = tiny_config();
  auto kept = [&](const RecomputeSettings& r) {
    TinyModel m(config, DType::f32);
    m.recompute = r;
    TinyBatch batch(kLengths, config.vocab_size);
    Pass pass{m.context, batch.batch, m.saved.keep, m.saved.routed, Mode::train, m.recompute, m.balance, 1};
    m.model.forward(pass, 1, m.saved);
    return m.saved.bytes();
  };
  std::size_t none = kept({});
  for (bool RecomputeSettings::*member : {&RecomputeSettings::core_attn, &RecomputeSettings::layernorm, &RecomputeSettings::moe_act,
                                         &RecomputeSettings::mlp, &RecomputeSettings::moe}) {
    RecomputeSettings r;
    r.granularity = RecomputeSettings::Granularity::selective;
    r.*member = true;
    EXPECT_LT(kept(r), none);
  }
  RecomputeSettings full;
  full.granularity = RecomputeSettings::Granularity::full;
  EXPECT_LT(kept(full), none / 4);
}

TEST(RoutedPool, IsExactlyWhatTheModelSays) {
  ModelConfig config = tiny_config();
  TinyBatch batch(kLengths, config.vocab_size);
  for (bool act : {false, true}) {
    TinyModel m(config, DType::f32);
    m.recompute.moe_act = act;
    m.saved.routed = Arena(m.device, "routed", m.model.routed_bytes(batch.size(), m.recompute, m.balance));
    m.forward_backward(batch);
    EXPECT_EQ(m.saved.routed.used(), m.model.routed_bytes(batch.size(), m.recompute, m.balance));
    m.saved.reset();
    m.saved.routed = Arena(m.device, "routed", m.model.routed_bytes(batch.size(), m.recompute, m.balance) - 1);
    EXPECT_THROW(m.forward_backward(batch), InternalError);  // capped
  }
}

// Packed documents against each document alone: the same losses to the last bit, gradients to rounding (fp64).
TEST(Packing, EqualsDocumentsOneByOne) {
  ModelConfig config = tiny_config();
  TinyModel packed(config, DType::f64), single(config, DType::f64);
  TinyBatch batch(kLengths, config.vocab_size);
  packed.forward_backward(batch);
  std::vector<double> losses(packed.saved.token_loss.as<double>(), packed.saved.token_loss.as<double>() + batch.size());
  for (const AttentionSegment& d : batch.documents) {
    std::int64_t n = d.q_end - d.q_begin;
    std::vector<AttentionSegment> document = {{0, n, 0, n}};
    MicroBatch one{batch.batch.tokens.slice_rows(d.q_begin, d.q_end), batch.batch.targets.slice_rows(d.q_begin, d.q_end),
                   batch.batch.positions.slice_rows(d.q_begin, d.q_end), 1, document};
    single.saved.reset();
    Pass pass{single.context, one, single.saved.keep, single.saved.routed, Mode::train, single.recompute, single.balance, 1};
    single.model.forward(pass, 1.0 / double(batch.counted()), single.saved);
    for (std::int64_t i = 0; i < n; ++i) EXPECT_EQ(single.saved.token_loss.as<double>()[i], losses[std::size_t(d.q_begin + i)]);
    single.model.backward(pass, single.saved);
  }
  for (std::int64_t i = 0; i < packed.set.gradients().numel(); ++i)
    ASSERT_NEAR(packed.set.gradients().as<double>()[i], single.set.gradients().as<double>()[i], 1e-12);
}

TEST(Evaluate, EqualsTheTrainingLossAndLogits) {
  ModelConfig config = tiny_config();
  TinyModel m(config, DType::f32);
  TinyBatch batch(kLengths, config.vocab_size);
  double loss = m.forward_backward(batch);
  Arena memory(m.device, "memory");
  Tensor token_loss = memory.tensor({batch.size()}, DType::f32), logits = memory.tensor({batch.size(), config.vocab_size}, DType::f32);
  Pass pass{m.context, batch.batch, m.scratch, m.scratch, Mode::evaluate, m.recompute, m.balance, 1};
  m.model.evaluate(pass, token_loss, logits);
  EXPECT_EQ(sum(m.context, token_loss) / double(batch.counted()), loss);
  for (std::int64_t t = 0; t < batch.size(); ++t) {
    if (batch.targets[std::size_t(t)] < 0) continue;
    double s = 0;
    for (std::int64_t v = 0; v < config.vocab_size; ++v) s += std::exp(double(logits.as<float>()[t * config.vocab_size + v]));
    EXPECT_NEAR(std::log(s) - logits.as<float>()[t * config.vocab_size + batch.targets[std::size_t(t)]], token_loss.as<float>()[t], 1e-5);
  }
}

// Mixed precision: bf16 follows fp32 within its rounding, and the master weights move where bf16 alone would stand still.
TEST(Bf16, TrainsLikeFp32) {
  ModelConfig config = tiny_config();
  TinyBatch batch(kLengths, config.vocab_size);
  double loss[2][2];
  DType types[] = {DType::f32, DType::bf16};
  for (int i = 0; i < 2; ++i) {
    TinyModel m(config, types[i]);
    Optimizer optimizer(m.device, m.set);
    loss[i][0] = m.forward_backward(batch);
    optimizer.step(m.context, {}, 1e-4);
    for (int s = 0; s < 60; ++s) {
      loss[i][1] = m.forward_backward(batch);
      optimizer.step(m.context, {}, 1e-4);
    }
  }
  EXPECT_NEAR(loss[0][0], loss[1][0], 0.02 * loss[0][0]);
  EXPECT_LT(loss[0][1], loss[0][0] - 0.05);
  EXPECT_NEAR(loss[0][0] - loss[0][1], loss[1][0] - loss[1][1], 0.25 * (loss[0][0] - loss[0][1]));
}

}  // namespace
}  // namespace af::test
