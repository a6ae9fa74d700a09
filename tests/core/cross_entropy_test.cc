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

// A vocabulary that ranks share, in three steps, against the whole in one: loss and gradient.
struct Shared {
  Numbers loss, gradient;
};
Shared in_shares(const Context& cpu, DType dtype, const Numbers& logits, const Numbers& targets, const std::vector<i64>& cuts, double scale) {
  const i64 rows = i64(targets.size()), v = cuts.back(), ranks = i64(cuts.size()) - 1;
  const Operand target({rows}, DType::i32, targets), all({ranks * rows, 3}, dtype), loss({rows}, dtype), total({rows, 2}, dtype);
  std::vector<Operand> parts;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    Numbers own;
    for (i64 r = 0; r < rows; ++r) own.insert(own.end(), logits.begin() + r * v + cuts[i], logits.begin() + r * v + cuts[i + 1]);
    parts.emplace_back(Shape{rows, cuts[i + 1] - cuts[i]}, dtype, own, 5);
    cross_entropy_share(cpu, parts.back(), target, cuts[i], all.tensor().slice_rows(i64(i) * rows, i64(i + 1) * rows));
    EXPECT_EQ(parts.back().values(), own) << "the first step only reads";
  }
  cross_entropy_total(cpu, all, target, loss, total);
  Shared result{loss.values(), Numbers(logits.size())};
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    cross_entropy_share_gradient(cpu, parts[i], target, cuts[i], total, scale);
    EXPECT_TRUE(parts[i].canaries_alive());
    const Numbers d = parts[i].values();
    for (i64 r = 0; r < rows; ++r) std::copy_n(d.begin() + r * (cuts[i + 1] - cuts[i]), cuts[i + 1] - cuts[i], result.gradient.begin() + r * v + cuts[i]);
  }
  EXPECT_TRUE(all.canaries_alive() && loss.canaries_alive() && total.canaries_alive());
  return result;
}

TEST(CrossEntropy, SharesOfTheVocabulary) {
  const OnCpu cpu;
  const i64 v = 77;
  // The target in the first and last share, at their edges, in the middle; and not counted.
  const Numbers targets = {0, -1, 76, 9, 10, 38, 39, 75, -1, 50};
  const i64 rows = i64(targets.size());
  for (const DType dtype : {DType::f32, DType::f64})
    for (const double shift : {0.0, 3000.0, -3000.0})
      for (const std::vector<i64>& cuts : {std::vector<i64>{0, 77}, {0, 39, 77}, {0, 10, 38, 76, 77}}) {
        const double scale = 0.25;
        Operand logits = random_operand({rows, v}, dtype, 1, 0, 3);
        Numbers shifted = logits.values();
        for (double& z : shifted) z += shift;
        logits.set(shifted);
        const Numbers before = logits.values();  // as the type holds them
        const Operand target({rows}, DType::i32, targets), loss({rows}, dtype);
        cross_entropy(cpu, logits, target, loss, scale, WithGradient::yes);
        const Shared shared = in_shares(cpu, dtype, before, targets, cuts, scale);
        if (cuts.size() == 2) {  // one share is the whole: the same operations
          EXPECT_EQ(shared.loss, loss.values());
        }
        const double bound = dtype == DType::f64 ? 1e-14 : 5e-7;
        expect_near(shared.loss, loss.values(), 4 * bound, 4);
        expect_near(shared.gradient, logits.values(), bound);
        for (i64 r = 0; r < rows; ++r) {
          const Numbers row(before.begin() + r * v, before.begin() + (r + 1) * v);
          const i64 y = i64(targets[std::size_t(r)]);
          EXPECT_NEAR(shared.loss[std::size_t(r)], y < 0 ? 0 : naive_loss(row, y), dtype == DType::f64 ? 1e-11 : 1e-5);
        }
      }
}

TEST(CrossEntropy, AShareWithLargeLogitsOnly) {  // the others' exponentials vanish beside it, and none overflows
  const OnCpu cpu;
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Numbers logits = {1, 2, 3000, 3001, -5, 4};
    const Shared shared = in_shares(cpu, dtype, logits, {3}, {0, 2, 4, 6}, 1);
    EXPECT_NEAR(shared.loss[0], std::log1p(std::exp(-1)), 1e-6);
    const double p = 1 / (1 + std::exp(1));
    expect_near(shared.gradient, {0, 0, p, -p, 0, 0}, 1e-6);
    EXPECT_NEAR(in_shares(cpu, dtype, logits, {1}, {0, 2, 4, 6}, 1).loss[0], 2999 + std::log1p(std::exp(-1)), 1e-3);
  }
}

TEST(CrossEntropy, NotANumberOfAnyShareIsSeen) {
  const OnCpu cpu;
  for (const i64 at : {0, 3, 5}) {
    Numbers logits = {1, 2, 3, 4, -5, 4};
    logits[std::size_t(at)] = std::nan("");
    const i64 rows = 1;
    const Operand target({rows}, DType::i32, {2}), all({3, 3}, DType::f32), loss({rows}, DType::f32), total({rows, 2}, DType::f32);
    for (i64 i = 0; i < 3; ++i) {
      const Operand part({rows, 2}, DType::f32, Numbers(logits.begin() + 2 * i, logits.begin() + 2 * i + 2));
      cross_entropy_share(cpu, part, target, 2 * i, all.tensor().slice_rows(i, i + 1));
    }
    cross_entropy_total(cpu, all, target, loss, total);
    EXPECT_TRUE(std::isnan(loss.values()[0])) << at;
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
