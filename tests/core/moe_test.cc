#include "core/ops/moe.h"

#include <algorithm>
#include <numeric>

#include "tests/core/op_fixture.h"

namespace af {
namespace {
using namespace testing;

struct Routed {
  Numbers probs, weight, expert, log_sum_exp;
};
Routed naive_route(const Numbers& logits, i64 experts, int k, NormTopk norm) {
  Routed out;
  for (std::size_t r = 0; r < logits.size() / std::size_t(experts); ++r) {
    const Numbers z(logits.begin() + i64(r) * experts, logits.begin() + i64(r + 1) * experts);
    const double largest = *std::max_element(z.begin(), z.end());
    double sum = 0, chosen = 0;
    for (const double v : z) sum += std::exp(v - largest);
    for (const double v : z) out.probs.push_back(std::exp(v - largest) / sum);
    out.log_sum_exp.push_back(largest + std::log(sum));
    std::vector<int> order(z.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return z[std::size_t(a)] > z[std::size_t(b)]; });
    const double* p = &out.probs[r * z.size()];
    for (int s = 0; s < k; ++s) chosen += p[order[std::size_t(s)]];
    for (int s = 0; s < k; ++s) {
      out.expert.push_back(order[std::size_t(s)]);
      out.weight.push_back(p[order[std::size_t(s)]] / (norm == NormTopk::yes ? chosen : 1));
    }
  }
  return out;
}

TEST(Route, EqualsASort) {
  const OnCpu cpu;
  for (const DType dtype : {DType::f32, DType::f64})
    for (const auto& [experts, k] : {std::pair<i64, int>{8, 2}, {20, 20}, {128, 8}, {512, 16}, {1, 1}})
      for (const NormTopk norm : {NormTopk::no, NormTopk::yes}) {
        const i64 t = 33;
        const Operand logits = random_operand({t, experts}, dtype, 1, 3, 2);
        const Operand probs({t, experts}, dtype, 2), expert({t, k}, DType::i32), weight({t, k}, dtype), lse({t}, dtype);
        route(cpu, logits, k, norm, probs, expert, weight, lse);
        const Routed expected = naive_route(logits.values(), experts, k, norm);
        expect_near(probs.values(), expected.probs, tolerance(dtype), 0);
        EXPECT_EQ(expert.values(), expected.expert);
        expect_near(weight.values(), expected.weight, 2 * tolerance(dtype), 0);
        expect_near(lse.values(), expected.log_sum_exp, tolerance(dtype));
        EXPECT_TRUE(probs.canaries_alive() && expert.canaries_alive() && weight.canaries_alive() && lse.canaries_alive());
      }
}

TEST(Route, TiesGoToTheLowerExpertAndNaNStaysInBounds) {
  const OnCpu cpu;
  const double nan = std::nan("");
  const Operand logits({4, 6}, DType::f32,
                       {1, 1, 1, 1, 1, 1, 0, 2, 2, 0, 2, 5, nan, 0, 0, 0, 0, 0, -INFINITY, 3, -INFINITY, 3, -INFINITY, -INFINITY});
  const Operand probs({4, 6}, DType::f32), expert({4, 3}, DType::i32), weight({4, 3}, DType::f32), lse({4}, DType::f32);
  route(cpu, logits, 3, NormTopk::yes, probs, expert, weight, lse);
  EXPECT_EQ(expert.values(), (Numbers{0, 1, 2, 5, 1, 2, 0, 1, 2, 1, 3, 0}));
  EXPECT_TRUE(std::isnan(weight.values()[6]));
  EXPECT_FLOAT_EQ(float(weight.values()[9]), 0.5f);
}

// L = <weight, dw> + sum over groups <d_probs, probs> + z sum lse^2, for a fixed choice.
TEST(Route, BackwardIsTheGradient) {
  const OnCpu cpu;
  const i64 t = 6, experts = 7;
  const int k = 3;
  for (const NormTopk norm : {NormTopk::no, NormTopk::yes})
    for (const i64 groups : {0, 1, 2})
      for (const double z : {0.0, 0.3}) {
        const Operand logits = random_operand({t, experts}, DType::f64, 1, 2), d_weight = random_operand({t, k}, DType::f64, 2);
        const Operand probs({t, experts}, DType::f64, 1), expert({t, k}, DType::i32), weight({t, k}, DType::f64), lse({t}, DType::f64);
        const Operand d_probs = random_operand({std::max<i64>(groups, 1), experts}, DType::f64, 3), d_logits({t, experts}, DType::f64, 3);
        route(cpu, logits, k, norm, probs, expert, weight, lse);
        route_backward(cpu, d_weight, {probs, expert, weight, lse, norm, groups ? d_probs.tensor() : Tensor(), z}, d_logits);
        const auto loss = [&](const Numbers& x) {
          const Routed routed = naive_route(x, experts, k, norm);
          EXPECT_EQ(routed.expert, expert.values());
          double sum = dot(routed.weight, d_weight.values()) + z * dot(routed.log_sum_exp, routed.log_sum_exp);
          for (i64 i = 0; groups && i < t * experts; ++i)
            sum += d_probs.values()[std::size_t(i / experts / (t / groups) * experts + i % experts)] * routed.probs[std::size_t(i)];
          return sum;
        };
        expect_gradient(loss, logits.values(), d_logits.values());
        EXPECT_TRUE(d_logits.canaries_alive());

        const Operand p32({t, experts}, DType::f32, probs.values()), w32({t, k}, DType::f32, weight.values()), l32({t}, DType::f32, lse.values());
        const Operand dw32({t, k}, DType::f32, d_weight.values()), dp32(d_probs.tensor().shape, DType::f32, d_probs.values()),
            out32({t, experts}, DType::f32);
        route_backward(cpu, dw32, {p32, expert, w32, l32, norm, groups ? dp32.tensor() : Tensor(), z}, out32);
        expect_near(out32.values(), d_logits.values(), 1e-6);
      }
}

TEST(ExpertLoad, CountsAndSums) {
  const OnCpu cpu;
  const i64 experts = 12;
  const int k = 3;
  for (const DType dtype : {DType::f32, DType::f64})
    for (const auto& [t, groups] : {std::pair<i64, i64>{100, 1}, {100, 4}, {0, 2}}) {
      const Operand probs = random_operand({t, experts}, dtype, 1, 2), expert({t, k}, DType::i32, below(t * k, 2, int(experts)));
      const Operand counts({groups, experts}, DType::i64), sums({groups, experts}, DType::f64);
      expert_load(cpu, probs, expert, counts, sums);
      Numbers expected_counts(std::size_t(groups * experts)), expected_sums(expected_counts);
      for (i64 i = 0; i < t; ++i) {
        const i64 group = i / (t / groups);
        for (i64 e = 0; e < experts; ++e) expected_sums[std::size_t(group * experts + e)] += probs.values()[std::size_t(i * experts + e)];
        for (int s = 0; s < k; ++s) ++expected_counts[std::size_t(group * experts + i64(expert.values()[std::size_t(i * k + s)]))];
      }
      EXPECT_EQ(counts.values(), expected_counts);
      expect_near(sums.values(), expected_sums, 1e-12);
      EXPECT_TRUE(counts.canaries_alive() && sums.canaries_alive());
    }
}

TEST(Permutation, IsAStableSortByExpert) {
  const OnCpu cpu;
  for (const i64 experts : {1, 5, 128, 300})
    for (const i64 t : {0, 1, 700}) {
      const int k = 4;
      const Numbers choice = below(t * k, 2, int(std::max<i64>(experts - 2, 1)));  // the last ones get none
      const Operand expert({t, k}, DType::i32, choice), source({t * k}, DType::i32), position({t, k}, DType::i32);
      std::vector<i64> offsets(std::size_t(experts + 1), -1);
      permutation(cpu, expert, experts, source, position, offsets.data());
      std::vector<int> order(choice.size());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return choice[std::size_t(a)] < choice[std::size_t(b)]; });
      EXPECT_EQ(source.values(), Numbers(order.begin(), order.end()));
      const Numbers inverse = position.values();
      for (std::size_t r = 0; r < order.size(); ++r) ASSERT_EQ(inverse[std::size_t(order[r])], double(r));
      for (i64 e = 0; e <= experts; ++e)
        EXPECT_EQ(offsets[std::size_t(e)], std::count_if(choice.begin(), choice.end(), [&](double c) { return c < double(e); }));
      EXPECT_TRUE(source.canaries_alive() && position.canaries_alive());
    }
}

TEST(Permutation, RowsGoAndComeBack) {
  const OnCpu cpu;
  const i64 t = 30, h = 27, experts = 6;
  const int k = 3;
  const Operand expert({t, k}, DType::i32, below(t * k, 2, int(experts))), source({t * k}, DType::i32), position({t, k}, DType::i32);
  std::vector<i64> offsets(std::size_t(experts + 1));
  permutation(cpu, expert, experts, source, position, offsets.data());
  for (const DType dtype : kFloats) {
    const Operand x = random_operand({t, h}, dtype, 1, 4), rows({t * k, h}, dtype, 2), weight = random_operand({t, k}, dtype, 3);
    permute_rows(cpu, x, source, k, rows);
    const Operand taken({t * k}, dtype), back({t, k}, dtype);
    permute_scalars(cpu, weight, source, taken);
    const Numbers from = source.values(), to = position.values(), x_values = x.values(), row_values = rows.values();
    for (i64 r = 0; r < t * k; ++r) {
      const i64 choice = i64(from[std::size_t(r)]);
      ASSERT_EQ(taken.values()[std::size_t(r)], weight.values()[std::size_t(choice)]);
      for (i64 c = 0; c < h; ++c) ASSERT_EQ(row_values[std::size_t(r * h + c)], x_values[std::size_t(choice / k * h + c)]);
    }
    unpermute_scalars(cpu, taken, position, back);
    EXPECT_EQ(back.values(), weight.values());

    const Operand y = random_operand({t * k, h}, dtype, 5, 1);
    const Numbers y_values = y.values();
    const Operand base = random_operand({t, h}, dtype, 6, 3), out({t, h}, dtype, 5);
    for (const bool on_base : {false, true}) {
      Numbers expected = on_base ? base.values() : Numbers(std::size_t(t * h), 0.);
      for (i64 i = 0; i < t * h; ++i)
        for (int s = 0; s < k; ++s) expected[std::size_t(i)] += y_values[std::size_t(i64(to[std::size_t(i / h * k + s)]) * h + i % h)];
      unpermute_sum(cpu, y, position, on_base ? base.tensor() : Tensor(), out);
      expect_near(out.values(), expected, dtype == DType::bf16 ? 4e-3 : tolerance(dtype), dtype == DType::bf16 ? 0 : 1);  // rounded once
      if (on_base) {
        unpermute_sum(cpu, y, position, base, base);
        EXPECT_EQ(base.values(), out.values());
      }
    }
    EXPECT_TRUE(rows.canaries_alive() && out.canaries_alive() && base.canaries_alive() && taken.canaries_alive() && back.canaries_alive());
  }
}

}  // namespace
}  // namespace af
