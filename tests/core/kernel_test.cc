#include "core/kernel.h"

#include "tests/core/op_scenarios.h"

namespace af {
namespace {
using namespace testing;

TEST(Bf16, RoundsToNearestEven) {
  for (std::uint32_t raw = 0; raw < 0x10000; ++raw) {
    const float value = bits<float>(raw << 16);
    if (value != value) {
      EXPECT_TRUE(std::isnan(float(bf16(value))));
      continue;
    }
    ASSERT_EQ(bf16(value).raw, raw);
    if ((raw & 0x7f80) == 0x7f80) continue;  // infinite
    const std::uint32_t even = raw & 1 ? raw + 1 : raw;
    ASSERT_EQ(bf16(bits<float>(raw << 16 | 0x7fff)).raw, raw);
    ASSERT_EQ(bf16(bits<float>(raw << 16 | 0x8000)).raw, even);
    ASSERT_EQ(bf16(bits<float>(raw << 16 | 0x8001)).raw, raw + 1);
  }
}

TEST(Exponential, ToSevenDigits) {
  double worst = 0;
  for (double x = -86.9; x < 87.9; x += 0.00037) worst = std::max(worst, std::abs(exponential(float(x)) / std::exp(double(float(x))) - 1));
  EXPECT_LT(worst, 1.2e-7);
  EXPECT_EQ(exponential(0.f), 1.f);
  EXPECT_LT(exponential(-INFINITY), 1e-37f);
  EXPECT_GT(exponential(INFINITY), 1e38f);
  EXPECT_TRUE(std::isnan(exponential(bits<float>(0x7fc00001u)) + 0));
  EXPECT_EQ(exponential(1.25), std::exp(1.25));
  EXPECT_FLOAT_EQ(sigmoid(0.75f), float(1 / (1 + std::exp(-0.75))));
}

TEST(Threads, DoNotChangeABit) {
  const Size large{80, 420};  // above the threshold below which one thread does everything
  for (const Scenario& scenario : kScenarios)
    for (const DType dtype : kFloats) {
      Size size = large;
      if (scenario.run == run_permutation) size = {12000, 12};  // many choices: the sort too
      if (scenario.run == run_embedding) size = {34000, 8};
      const Numbers one = scenario.run(OnCpu(1), dtype, size);
      for (const int threads : {2, 3})
        ASSERT_EQ(scenario.run(OnCpu(threads), dtype, size), one) << scenario.name << " " << name_of(dtype) << " " << threads;
    }
}

// Each row by itself, and at another address, has the bits that it has among others.
TEST(Rows, DoNotDependOnTheirNeighboursOrAddress) {
  const OnCpu cpu;
  const i64 rows = 5, cols = 257, heads = 3, d = 20;
  for (const DType dtype : kFloats) {
    const auto run = [&](i64 rows_at_once, i64 pad) {
      const DType acc = accumulator_of(dtype);
      const Operand x = random_operand({rows, 2 * cols}, dtype, 1, pad), w = random_operand({2 * cols}, dtype, 2),
                    dy = random_operand({rows, cols}, dtype, 3, pad);
      const Operand y({rows, 2 * cols}, dtype, pad), rstd({rows}, acc), half({rows, cols}, dtype, pad), gradient({rows, 2 * cols}, dtype, pad);
      const Operand logits = random_operand({rows, cols}, acc, 4, pad), probs({rows, cols}, acc, pad), expert({rows, 4}, DType::i32),
                    weight({rows, 4}, acc);
      const Operand lse({rows}, acc), target({rows}, DType::i32, below(rows, 5, int(cols))), loss({rows}, acc);
      const Operand q = random_operand({rows, heads, d}, dtype, 6, pad), angle = random_operand({1, d / 2}, acc, 7),
                    at({rows}, DType::i32, Numbers(rows, 0.));
      const Operand turned({rows, heads, d}, dtype, pad), turned_rstd({rows, heads}, acc);
      for (i64 begin = 0; begin < rows; begin += rows_at_once) {
        const auto part = [&](const Operand& o) { return o.tensor().slice_rows(begin, begin + rows_at_once); };
        rms_norm(cpu, part(x), w, 1e-6, part(y), part(rstd));
        head_norm_rope(cpu, part(q), {w.tensor().slice_rows(0, d), angle, angle, part(at), 1e-6}, part(turned), part(turned_rstd));
        swiglu(cpu, part(x), {}, part(half));
        swiglu_backward(cpu, part(dy), part(x), {}, part(gradient), {});
        route(cpu, part(logits), 4, NormTopk::yes, part(probs), part(expert), part(weight), part(lse));
        cross_entropy(cpu, part(logits), part(target), part(loss), 1, WithGradient::yes);
      }
      return outputs(y, rstd, turned, half, gradient, logits, probs, lse, weight, loss);
    };
    const Numbers expected = run(rows, 0);
    for (const i64 pad : {0, 1, 2, 3, 13}) EXPECT_EQ(run(1, pad), expected) << name_of(dtype) << " " << pad;
  }
}

}  // namespace
}  // namespace af
