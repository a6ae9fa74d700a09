// Sequences that grow in a cache against the same sequences run as a whole, to the last bit; and what draws the next token.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "models/decoder.h"
#include "models/sampling.h"
#include "tests/models/tiny.h"

namespace af::test {
namespace {

constexpr std::int64_t kPositions = 700;  // several blocks of keys

struct Sequences {
  TinyModel m;
  std::vector<std::vector<std::int32_t>> tokens;
  std::vector<std::vector<char>> expected;  // logits of each sequence alone and whole, row by row

  Sequences(const ModelConfig& config, DType dtype, const std::vector<std::int64_t>& lengths, int threads = 1) : m(config, dtype, threads) {
    m.model.set_rope(m.context, config.rope, kPositions);
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      TinyBatch batch({lengths[s]}, config.vocab_size, 10 + s, 1);
      tokens.push_back(batch.tokens);
      expected.push_back(whole(batch));
    }
  }
  std::int64_t row_bytes() const { return m.model.config().vocab_size * std::int64_t(size_of(accumulator_of(m.set.dtype()))); }
  std::vector<char> whole(const TinyBatch& batch) {
    Arena memory(m.device, "whole");
    const DType accumulator = accumulator_of(m.set.dtype());
    Tensor loss = memory.tensor({batch.size()}, accumulator), logits = memory.tensor({batch.size(), m.model.config().vocab_size}, accumulator);
    m.model.evaluate({m.context, batch.batch, m.scratch, m.scratch, Mode::evaluate, m.recompute, m.balance}, loss, logits);
    const char* p = static_cast<const char*>(logits.data);
    return {p, p + logits.bytes()};
  }
  Decoder decoder() {
    std::vector<std::int64_t> capacities;
    for (const auto& t : tokens) capacities.push_back(std::int64_t(t.size()) + 3);
    return Decoder(m.model, m.context, capacities);
  }
  // All new tokens' logits of the pieces, compared with the whole sequences'. Number of rows that differ.
  int extend(Decoder& decoder, const std::vector<std::pair<int, std::int64_t>>& counts) {
    std::vector<Decoder::Piece> pieces;
    std::vector<const char*> wanted;
    for (auto [s, count] : counts) {
      const std::int64_t at = decoder.length(s);
      pieces.push_back({s, std::span(tokens[std::size_t(s)]).subspan(std::size_t(at), std::size_t(count))});
      for (std::int64_t i = at; i < at + count; ++i) wanted.push_back(expected[std::size_t(s)].data() + i * row_bytes());
    }
    std::vector<std::int32_t> rows(wanted.size());
    std::iota(rows.begin(), rows.end(), 0);
    Arena memory(m.device, "logits");
    Tensor logits = memory.tensor({std::int64_t(rows.size()), m.model.config().vocab_size}, decoder.accumulator());
    decoder.logits(pieces, rows, logits);
    int different = 0;
    for (std::size_t i = 0; i < rows.size(); ++i)
      different += std::memcmp(static_cast<const char*>(logits.data) + std::int64_t(i) * row_bytes(), wanted[i], std::size_t(row_bytes())) != 0;
    return different;
  }
};

class Cached : public testing::TestWithParam<std::tuple<DType, bool>> {};

TEST_P(Cached, LogitsAreThoseOfTheWholeSequenceToTheBit) {
  const auto [dtype, moe] = GetParam();
  for (int threads : {1, 3}) {
    Sequences all(tiny_config(moe), dtype, {650, 9, 200, 1}, threads);
    Decoder decoder = all.decoder();
    // In pieces of any size, beside any others, some sequences late.
    for (int call = 0;; ++call) {
      std::vector<std::pair<int, std::int64_t>> counts;
      for (int s = int(all.tokens.size()) - 1; s >= 0; --s) {
        const std::int64_t left = std::int64_t(all.tokens[std::size_t(s)].size()) - decoder.length(s);
        const std::int64_t wanted = std::int64_t(random_below(5, std::uint64_t(s), std::uint64_t(call), call % 3 == 0 ? 90 : 4));
        if (std::min(left, wanted) > 0) counts.emplace_back(s, std::min(left, wanted));
      }
      if (counts.empty() && call > 300) break;
      if (counts.empty()) continue;
      ASSERT_EQ(all.extend(decoder, counts), 0) << "call " << call << ", " << threads << " threads";
    }
    for (std::size_t s = 0; s < all.tokens.size(); ++s) EXPECT_EQ(decoder.length(int(s)), std::int64_t(all.tokens[s].size()));
  }
}

TEST_P(Cached, WhatIsForgottenLeavesNoTrace) {
  const auto [dtype, moe] = GetParam();
  Sequences all(tiny_config(moe), dtype, {230, 40});
  Decoder decoder = all.decoder();
  EXPECT_EQ(all.extend(decoder, {{0, 210}, {1, 20}}), 0);
  const std::int32_t other[] = {1, 2, 3, 4, 5};
  Arena memory(all.m.device, "losses");
  const std::int32_t targets[] = {2, 3, 4, 5, -1};
  const Decoder::Piece piece{0, other};
  decoder.losses({&piece, 1}, targets, memory.tensor({5}, decoder.accumulator()));
  decoder.truncate(0, 150);
  EXPECT_EQ(all.extend(decoder, {{0, 80}, {1, 20}}), 0);
}

// Losses of pieces are those of the whole sequence.
TEST_P(Cached, Losses) {
  const auto [dtype, moe] = GetParam();
  const ModelConfig config = tiny_config(moe);
  Sequences all(config, dtype, {60});
  TinyBatch batch({60}, config.vocab_size, 10, 1);
  Arena memory(all.m.device, "losses");
  Tensor whole = memory.tensor({60}, accumulator_of(dtype)), part = memory.tensor({25}, accumulator_of(dtype));
  all.m.model.evaluate({all.m.context, batch.batch, all.m.scratch, all.m.scratch, Mode::evaluate, all.m.recompute, all.m.balance}, whole);
  Decoder decoder = all.decoder();
  all.extend(decoder, {{0, 30}});
  const Decoder::Piece piece{0, std::span(all.tokens[0]).subspan(30, 25)};
  decoder.losses({&piece, 1}, std::span(batch.targets).subspan(30, 25), part);
  const Tensor same = whole.slice_rows(30, 55);
  EXPECT_EQ(std::memcmp(part.data, same.data, part.bytes()), 0);
}

INSTANTIATE_TEST_SUITE_P(Types, Cached, testing::Combine(testing::Values(DType::f32, DType::bf16, DType::f64), testing::Bool()));

// The comparison must see a cache that is wrong: the same token with what a wrong decoder would tell the model.
TEST(CachedMutants, AreSeen) {
  Sequences all(tiny_config(), DType::f32, {20});
  KeyValueCache cache(all.m.model.config(), all.m.device, DType::f32, 24);
  Arena memory(all.m.device, "logits");
  Tensor logits = memory.tensor({1, all.m.model.config().vocab_size}, DType::f32);
  const auto differs = [&](std::int64_t positions, std::int64_t keys_begin, std::int64_t keys_end, int token = 10) {
    std::int32_t position = std::int32_t(token + positions), target = -1, row = 0;
    for (std::int64_t begin : {std::int64_t(0), std::int64_t(token)}) {  // the tokens before, as they should be, then this one
      const std::int64_t count = begin == 0 ? token : 1;
      std::vector<std::int32_t> places(std::size_t(token), 0), targets(std::size_t(token), -1);
      std::iota(places.begin(), places.end(), 0);
      std::vector<AttentionSegment> documents = {{0, count, 0, count}};
      if (begin > 0) documents = {{0, 1, keys_begin, keys_end}};
      MicroBatch batch{Tensor(all.tokens[0].data() + begin, DType::i32, {count}), Tensor(begin ? &target : targets.data(), DType::i32, {count}),
                       Tensor(begin ? &position : places.data(), DType::i32, {count}), 1, documents};
      Pass pass{all.m.context, batch, all.m.scratch, all.m.scratch, Mode::evaluate, all.m.recompute, all.m.balance};
      pass.cache = &cache;
      all.m.model.logits_of(pass, Tensor(&row, DType::i32, {1}), logits);
    }
    return std::memcmp(logits.data, all.expected[0].data() + token * all.row_bytes(), std::size_t(all.row_bytes())) != 0;
  };
  EXPECT_FALSE(differs(0, 0, 11));
  EXPECT_TRUE(differs(1, 0, 11)) << "position off by one";
  EXPECT_TRUE(differs(0, 0, 10)) << "the last key overwritten";
  EXPECT_TRUE(differs(0, 1, 11)) << "the first key not seen";
  EXPECT_TRUE(differs(0, 0, 12)) << "a key beyond its own: no causal mask";
}

// Straight from the definitions, in another order of work: everything sorted, everything summed.
std::vector<double> naive(std::vector<float> logits, const std::vector<std::int32_t>& before, const SamplingSettings& settings) {
  for (std::size_t id = 0; id < logits.size(); ++id)
    if (std::find(before.begin(), before.end(), std::int32_t(id)) != before.end())
      logits[id] = logits[id] > 0 ? logits[id] / float(settings.repetition_penalty) : logits[id] * float(settings.repetition_penalty);
  std::vector<double> p(logits.size());
  double total = 0;
  for (std::size_t i = 0; i < p.size(); ++i) total += p[i] = std::exp(double(logits[i]) / settings.temperature);
  for (double& x : p) x /= total;
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p[a] > p[b]; });
  double before_it = 0, kept = 0;
  for (std::size_t i : order) {
    const double own = p[i];
    if (settings.top_p < 1 && before_it >= settings.top_p) p[i] = 0;
    else kept += own;
    before_it += own;
  }
  for (double& x : p) x /= kept;
  return p;
}

TEST(Sampling, EqualsTheDefinitions) {
  for (int trial = 0; trial < 60; ++trial) {
    const std::size_t vocabulary = trial % 2 ? 37 : 3000;
    std::vector<float> logits(vocabulary);
    std::vector<std::int32_t> before;
    for (std::size_t i = 0; i < vocabulary; ++i) logits[i] = float(12 * random_uniform(1, std::uint64_t(trial), i) - 6);
    for (std::uint64_t i = 0; i < 20; ++i) before.push_back(std::int32_t(random_below(2, std::uint64_t(trial), i, vocabulary)));
    const double tops[] = {1, 0.9, 0.5, 0.01}, temperatures[] = {1, 0.3, 2.5}, penalties[] = {1, 1.3, 0.8};
    const SamplingSettings settings{temperatures[trial % 3], tops[trial % 4], penalties[trial / 3 % 3]};
    const std::vector<double> expected = naive(logits, before, settings);
    std::vector<double> found(vocabulary, 0);
    for (const WeightedToken& token : distribution(logits, before, settings)) found[std::size_t(token.id)] = token.probability;
    for (std::size_t i = 0; i < vocabulary; ++i) ASSERT_NEAR(found[i], expected[i], 1e-12) << "trial " << trial << " token " << i;
    const std::int32_t greedy = distribution(logits, before, {0, 1, settings.repetition_penalty}).front().id;
    EXPECT_EQ(greedy, std::int32_t(std::max_element(expected.begin(), expected.end()) - expected.begin()));
  }
}

// Draws of counter-based numbers follow the distribution; those of another temperature do not (the same statistic must notice).
TEST(Sampling, DrawsAreDistributedSo) {
  const std::vector<float> logits = {0, 1, 2, -1, 0.5F, 1.5F, -3, 0.25F};
  constexpr int kDraws = 20000;
  const auto statistic = [&](const SamplingSettings& drawn, const SamplingSettings& expected) {
    std::vector<double> counts(logits.size(), 0);
    const std::vector<WeightedToken> tokens = distribution(logits, {}, drawn);
    for (std::uint64_t i = 0; i < kDraws; ++i) counts[std::size_t(draw(tokens, random_uniform(7, 3, i)))] += 1;
    double sum = 0;
    for (const WeightedToken& token : distribution(logits, {}, expected)) {
      const double wanted = token.probability * kDraws;
      sum += (counts[std::size_t(token.id)] - wanted) * (counts[std::size_t(token.id)] - wanted) / wanted;
    }
    return sum;
  };
  EXPECT_LT(statistic({1, 1, 1}, {1, 1, 1}), 24.3);  // chi-square, 7 degrees of freedom: above it once in a thousand
  EXPECT_LT(statistic({0.7, 0.8, 1}, {0.7, 0.8, 1}), 24.3);
  EXPECT_GT(statistic({0.9, 1, 1}, {1, 1, 1}), 24.3);
  EXPECT_GT(statistic({1, 0.9, 1}, {1, 1, 1}), 24.3);
}

TEST(Sampling, EndsOfTheRange) {
  const std::vector<float> equal(5, 1.F);
  EXPECT_EQ(distribution(equal, {}, {}).size(), 1U);
  EXPECT_EQ(distribution(equal, {}, {}).front().id, 0);  // the first of equals
  const std::vector<WeightedToken> all = distribution(equal, {}, {1, 1, 1});
  EXPECT_EQ(draw(all, 0), 0);
  EXPECT_EQ(draw(all, 0x1.fffffffffffffp-1), 4);
  EXPECT_EQ(distribution(equal, {}, {1, 1e-9, 1}).size(), 1U);
}

}  // namespace
}  // namespace af::test
