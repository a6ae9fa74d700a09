// The hand-written backward of each module and of the whole model against central differences in fp64.
#include <gtest/gtest.h>

#include "tests/models/tiny.h"

namespace af::test {
namespace {

const std::vector<std::int64_t> kLengths = {5, 1, 6, 3, 9};  // two sequences of 12 tokens, documents of odd lengths

void fill_random(const Context& context, const Tensor& x, std::uint64_t stream, double std = 1) {
  fill_normal(context, {11, stream, 0, 0, x.cols()}, std, x.view({x.rows(), x.cols()}));
}

double dot(const Tensor& a, const Tensor& b) {
  double s = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) s += a.as<double>()[i] * b.as<double>()[i];
  return s;
}

// Central difference of f along element i of x.
double difference(const std::function<double()>& f, const Tensor& x, std::int64_t i) {
  double& v = x.as<double>()[i];
  double kept = v, h = 1e-5 * std::max(1.0, std::abs(kept));
  v = kept + h;
  double plus = f();
  v = kept - h;
  double minus = f();
  v = kept;
  return (plus - minus) / (2 * h);
}

// Every gradient of x at some elements, `stride` apart, against differences of f.
void expect_gradient(const std::function<double()>& f, const Tensor& x, const Tensor& gradient, const std::string& name, std::int64_t samples = 6) {
  double scale = std::sqrt(dot(gradient, gradient) / double(gradient.numel())) + 1e-6;
  for (std::int64_t s = 0; s < samples; ++s) {
    std::int64_t i = std::int64_t(random_below(5, hash_name(name), std::uint64_t(s), std::uint64_t(x.numel())));
    EXPECT_NEAR(gradient.as<double>()[i], difference(f, x, i), 2e-6 * scale + 1e-9) << name << " element " << i;
  }
}

// A module y = base + module(x) with its own parameters: <r, y> is differentiated by x and by every parameter.
struct ModuleTest {
  Device device;
  Arena scratch{device, "scratch"}, keep{device, "keep"};
  Context context{device, scratch};
  ParameterSet set{device, DType::f64};
  TinyBatch batch{kLengths, 37};
  RecomputeSettings recompute;
  BalanceSettings balance;
  Buffer memory{device, 5 * 24 * 20 * 8};
  Tensor x{memory.data(), DType::f64, {24, 20}}, y{x.as<double>() + 480, DType::f64, {24, 20}}, r{x.as<double>() + 960, DType::f64, {24, 20}},
      dx{x.as<double>() + 1440, DType::f64, {24, 20}};

  void start() {
    set.allocate();
    initialize(context, set, 4, 0.3);
    for (Parameter& p : set.parameters())
      if (p.init == InitMethod::ones) fill_random(context, p.value, hash_name(p.name));  // a norm's weight of one hides a missing factor
    fill_random(context, x, 1);
    fill_random(context, r, 2);
  }
  Pass pass() { return {context, batch.batch, keep, keep, Mode::train, recompute, balance, 1}; }
  // forward: y += ...; backward: fills dx and the parameters' gradients.
  void check(const std::function<double()>& objective, const std::function<void()>& backward) {
    backward();
    expect_gradient(objective, x, dx, "x", 12);
    for (Parameter& p : set.parameters()) expect_gradient(objective, p.value, p.gradient, p.name);
  }
};

struct TestRope {
  Buffer memory;
  RopeTables tables;
  TestRope(const Context& c, const ModelConfig& config) : memory(c.device, 2 * 64 * 8 * 64) {
    tables.cos = Tensor(memory.data(), DType::f64, {64, config.head_dim / 2});
    tables.sin = Tensor(tables.cos.as<double>() + tables.cos.numel(), DType::f64, {64, config.head_dim / 2});
    rope_tables(c, config.rope, tables.cos, tables.sin);
  }
};

TEST(Gradient, Attention) {
  ModelConfig config = tiny_config();
  ModuleTest t;
  Attention module(config, {}, 0, t.set);
  t.start();
  TestRope rope(t.context, config);
  Attention::Saved saved;
  auto forward = [&] {
    t.keep.reset();
    saved = {};
    fill(t.context, t.y, 0);
    module.forward(t.pass(), rope.tables, t.x, saved, t.y);
    return dot(t.r, t.y);
  };
  forward();
  t.check(forward, [&] { module.backward(t.pass(), rope.tables, t.r, t.x, saved, t.dx); });
}

TEST(Gradient, DenseMlp) {
  ModuleTest t;
  Mlp module(tiny_config(false), {}, 0, t.set);
  t.start();
  Mlp::Saved saved;
  auto forward = [&] {
    t.keep.reset();
    saved = {};
    fill(t.context, t.y, 0);
    module.forward(t.pass(), t.x, saved, t.y);
    return dot(t.r, t.y);
  };
  forward();
  t.check(forward, [&] { module.backward(t.pass(), t.r, t.x, saved, t.dx); });
}

struct MoeCase {
  BalanceType type;
  double z;
  bool norm_topk;
  double capacity = 0;
  DropPolicy policy = DropPolicy::probs;
};
class MoeGradient : public testing::TestWithParam<MoeCase> {};

TEST_P(MoeGradient, MatchesDifferences) {
  ModelConfig config = tiny_config();
  config.norm_topk_prob = GetParam().norm_topk;
  ModuleTest t;
  t.balance = {GetParam().type, 0.7, GetParam().z};
  if (GetParam().capacity > 0) t.balance.capacity_factor = GetParam().capacity;
  t.balance.drop_policy = GetParam().policy;
  Moe module(config, {}, 0, t.set);
  t.start();
  Moe::Saved saved;
  RouterStatistics statistics(config.num_experts);
  statistics.previous_counts = {9, 1, 4, 0, 2};
  auto forward = [&] {
    t.keep.reset();
    saved = {};
    RouterStatistics now = statistics;
    fill(t.context, t.y, 0);
    module.forward(t.pass(), t.x, now, saved, t.y);
    return dot(t.r, t.y) + now.balance_loss_sum + now.z_loss_sum;
  };
  forward();
  t.check(forward, [&] { module.backward(t.pass(), t.r, t.x, statistics, saved, t.dx); });
}

// y of a MoE layer as loops over tokens and choices: which choices count is decided token by token, choice by choice.
std::vector<double> moe_loop(const ModelConfig& config, const ParameterSet& set, const Tensor& x, const BalanceSettings& balance, int* dropped) {
  auto parameter = [&](const char* name) {
    for (const Parameter& p : set.parameters())
      if (p.name == name) return p.value.as<double>();
    return static_cast<double*>(nullptr);
  };
  const double *router = parameter("layers.0.router"), *gate_up = parameter("layers.0.experts.gate_up"), *down = parameter("layers.0.experts.down");
  int tokens = int(x.rows()), h = int(x.cols()), experts = int(config.num_experts), k = int(config.num_experts_per_tok), f = int(config.moe_intermediate_size);
  struct Choice {
    int token, expert;
    double weight;
  };
  std::vector<Choice> choices;
  for (int t = 0; t < tokens; ++t) {
    const double* row = x.as<double>() + t * h;
    std::vector<std::pair<double, int>> probs;
    double sum = 0, chosen = 0;
    for (int e = 0; e < experts; ++e) {
      double logit = 0;
      for (int j = 0; j < h; ++j) logit += router[e * h + j] * row[j];
      probs.push_back({-std::exp(logit), e});
      sum += std::exp(logit);
    }
    std::sort(probs.begin(), probs.end());
    for (int s = 0; s < k; ++s) chosen += -probs[std::size_t(s)].first / sum;
    for (int s = 0; s < k; ++s) choices.push_back({t, probs[std::size_t(s)].second, -probs[std::size_t(s)].first / sum / (config.norm_topk_prob ? chosen : 1)});
  }
  std::vector<double> y(std::size_t(tokens * h));
  for (const Choice& c : choices) {
    int before = 0;  // choices of the same expert that have the better right
    for (const Choice& other : choices) {
      bool better = balance.drop_policy == DropPolicy::probs ? other.weight > c.weight : other.token < c.token;
      before += other.expert == c.expert && better;
    }
    if (balance.capacity_factor && before >= std::ceil(*balance.capacity_factor * tokens * k / experts)) {
      ++*dropped;
      continue;
    }
    const double *row = x.as<double>() + c.token * h, *in = gate_up + c.expert * 2 * f * h, *out = down + c.expert * h * f;
    for (int i = 0; i < f; ++i) {
      double gate = 0, up = 0;
      for (int j = 0; j < h; ++j) gate += in[i * h + j] * row[j], up += in[(f + i) * h + j] * row[j];
      double act = c.weight * gate / (1 + std::exp(-gate)) * up;
      for (int j = 0; j < h; ++j) y[std::size_t(c.token * h + j)] += out[j * f + i] * act;
    }
  }
  return y;
}

TEST(MoeForward, EqualsTheLoopWithAndWithoutCapacity) {
  for (double capacity : {0.0, 0.1, 0.6, 1.0, 1.5, 5.0})
    for (DropPolicy policy : {DropPolicy::probs, DropPolicy::position})
      for (bool norm_topk : {true, false}) {
        ModelConfig config = tiny_config();
        config.norm_topk_prob = norm_topk;
        ModuleTest t;
        if (capacity > 0) t.balance.capacity_factor = capacity;
        t.balance.drop_policy = policy;
        Moe module(config, {}, 0, t.set);
        t.start();
        RouterStatistics statistics(config.num_experts);
        Moe::Saved saved;
        fill(t.context, t.y, 0);
        module.forward(t.pass(), t.x, statistics, saved, t.y);
        int dropped = 0;
        std::vector<double> expected = moe_loop(config, t.set, t.x, t.balance, &dropped);
        for (std::int64_t i = 0; i < t.y.numel(); ++i) ASSERT_NEAR(t.y.as<double>()[i], expected[std::size_t(i)], 1e-12) << capacity;
        EXPECT_EQ(statistics.dropped, dropped);
        EXPECT_EQ(dropped > 0, capacity > 0 && capacity <= 1) << capacity;
        std::int64_t counted = 0;  // before dropping
        for (std::int64_t n : statistics.counts) counted += n;
        EXPECT_EQ(counted, t.x.rows() * config.num_experts_per_tok);
      }
}

INSTANTIATE_TEST_SUITE_P(Losses, MoeGradient,
                         testing::Values(MoeCase{BalanceType::none, 0, true}, MoeCase{BalanceType::none, 0, false}, MoeCase{BalanceType::aux_loss, 0, true},
                                         MoeCase{BalanceType::seq_aux_loss, 0, true}, MoeCase{BalanceType::global_aux_loss, 0, false},
                                         MoeCase{BalanceType::none, 0.3, true}, MoeCase{BalanceType::aux_loss, 0.1, true, 0.6, DropPolicy::probs},
                                         MoeCase{BalanceType::none, 0, false, 0.6, DropPolicy::probs},
                                         MoeCase{BalanceType::seq_aux_loss, 0, true, 0.7, DropPolicy::position},
                                         MoeCase{BalanceType::none, 0, false, 0.4, DropPolicy::position}));

class ModelGradient : public testing::TestWithParam<bool> {};

TEST_P(ModelGradient, WholeModel) {
  for (bool tied : {false, true}) {
    ModelConfig config = tiny_config(GetParam());
    config.tie_word_embeddings = tied;
    TinyModel m(config, DType::f64);
    m.balance = {GetParam() ? BalanceType::seq_aux_loss : BalanceType::none, 0.1, GetParam() ? 0.01 : 0.0};
    TinyBatch batch(kLengths, config.vocab_size);
    m.forward_backward(batch);
    for (Parameter& p : m.set.parameters()) expect_gradient([&] { return m.objective(batch); }, p.value, p.gradient, p.name, 3);
  }
}

INSTANTIATE_TEST_SUITE_P(DenseAndMoe, ModelGradient, testing::Bool());

// The check above can fail: a gradient that is 1 % off does.
TEST(Gradient, MutantIsCaught) {
  ModelConfig config = tiny_config();
  TinyModel m(config, DType::f64);
  TinyBatch batch(kLengths, config.vocab_size);
  m.forward_backward(batch);
  Parameter& p = m.set.parameters().front();
  double exact = difference([&] { return m.objective(batch); }, p.value, std::int64_t(batch.tokens[0]) * config.hidden_size);
  double ours = p.gradient.as<double>()[std::int64_t(batch.tokens[0]) * config.hidden_size];
  double scale = std::sqrt(dot(p.gradient, p.gradient) / double(p.gradient.numel())) + 1e-6;
  EXPECT_NEAR(ours, exact, 2e-6 * scale + 1e-9);
  EXPECT_GT(std::abs(1.01 * ours - exact), 2e-6 * scale + 1e-9);
}

}  // namespace
}  // namespace af::test
