#include "core/ops/cross_entropy.h"

#include "tests/core/op_fixture.h"

namespace af {
namespace {
using namespace testing;

double naive_loss(const Numbers& logits, i64 target) {  // of one row
  double largest = -1e300, sum = 0;
  for (const double z : logits) largest = std::max(largest, z);
  for (const double z : logits) sum += std::exp(z - largest);
  return largest + std::log(sum) - logits[std::size_t(target)];
}

TEST(CrossEntropy, LossAndGradient) {
  const OnCpu cpu;
  const i64 rows = 6, v = 77;
  const Numbers targets = {3, -1, 76, 0, 40, -1};
  for (const DType dtype : {DType::f32, DType::f64})
    for (const double scale : {1.0, 0.25}) {
      const Operand logits = random_operand({rows, v}, dtype, 1, 9, 3), target({rows}, DType::i32, targets), loss({rows}, dtype);
      const Numbers before = logits.values();
      cross_entropy(cpu, logits, target, loss, scale, WithGradient::no);
      EXPECT_EQ(logits.values(), before);
      const Numbers loss_only = loss.values();
      cross_entropy(cpu, logits, target, loss, scale, WithGradient::yes);
      EXPECT_EQ(loss.values(), loss_only);
      EXPECT_TRUE(logits.canaries_alive() && loss.canaries_alive());
      const Numbers gradient = logits.values();
      for (i64 r = 0; r < rows; ++r) {
        const Numbers row(before.begin() + r * v, before.begin() + (r + 1) * v), g(gradient.begin() + r * v, gradient.begin() + (r + 1) * v);
        const i64 y = i64(targets[std::size_t(r)]);
        if (y < 0) {
          EXPECT_EQ(loss_only[std::size_t(r)], 0);
          EXPECT_EQ(g, Numbers(std::size_t(v), 0.));
          continue;
        }
        EXPECT_NEAR(loss_only[std::size_t(r)], naive_loss(row, y), dtype == DType::f64 ? 1e-13 : 2e-6);
        expect_gradient([&](const Numbers& z) { return scale * naive_loss(z, y); }, row, g, dtype == DType::f64 ? 1e-8 : 1e-6);
      }
    }
}

TEST(CrossEntropy, ALongRowAndLargeLogits) {  // no overflow; 151936 is Qwen3's vocabulary
  const OnCpu cpu;
  const i64 v = 151936;
  const Operand logits = random_operand({1, v}, DType::f32, 1, 0, 2), target({1}, DType::i32, {151935}), loss({1}, DType::f32);
  Numbers shifted = logits.values();
  for (double& z : shifted) z += 1000;
  const Operand large({1, v}, DType::f32, shifted);
  const double expected = naive_loss(logits.values(), 151935), expected_large = naive_loss(large.values(), 151935);
  cross_entropy(cpu, logits, target, loss, 1, WithGradient::yes);
  EXPECT_NEAR(loss.values()[0], expected, 2e-6);
  double sum = 0;
  for (const double g : logits.values()) sum += g;
  EXPECT_NEAR(sum, 0, 1e-5);
  cross_entropy(cpu, large, target, loss, 1, WithGradient::no);
  EXPECT_NEAR(loss.values()[0], expected_large, 1e-4);
}

TEST(CrossEntropy, NotANumberIsSeen) {
  const OnCpu cpu;
  const Operand logits({1, 3}, DType::f32, {1, std::nan(""), 2}), target({1}, DType::i32, {0}), loss({1}, DType::f32);
  cross_entropy(cpu, logits, target, loss, 1, WithGradient::yes);
  EXPECT_TRUE(std::isnan(loss.values()[0]));
}

}  // namespace
}  // namespace af
