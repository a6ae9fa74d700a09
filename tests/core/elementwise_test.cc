#include "core/ops/elementwise.h"

#include "tests/core/op_fixture.h"

namespace af {
namespace {
using namespace testing;

TEST(Elementwise, FillOfEveryType) {
  const OnCpu cpu;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::i64})
    for (const i64 pad : {0, 3}) {
      const Operand x({7, 1000}, dtype, pad);
      fill(cpu, x, -3);
      EXPECT_EQ(x.values(), Numbers(7000, -3.));
      EXPECT_TRUE(x.canaries_alive());
    }
}

TEST(Elementwise, ConvertRoundsToNearest) {
  const OnCpu cpu;
  for (const DType from : kFloats)
    for (const DType to : kFloats) {
      const Operand x = random_operand({3, 50}, from, 1, 4), y({3, 50}, to, 1);
      convert(cpu, x, y);
      EXPECT_EQ(y.values(), Operand({3, 50}, to, x.values()).values()) << name_of(from) << " to " << name_of(to);
      EXPECT_TRUE(y.canaries_alive());
    }
}

TEST(Elementwise, AddAndScale) {
  const OnCpu cpu;
  for (const DType dtype : kFloats)
    for (const i64 pad : {0, 5}) {
      const Operand a = random_operand({9, 500}, dtype, 1, pad), b = random_operand({9, 500}, dtype, 2), out({9, 500}, dtype, pad);
      Numbers expected = a.values();
      const Numbers addend = b.values();
      for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += addend[i];
      add(cpu, a, b, out);
      expect_near(out.values(), expected, tolerance(dtype), 0);
      add(cpu, a, b, a);
      EXPECT_EQ(a.values(), out.values());
      scale(cpu, a, -0.5);
      for (double& v : expected) v *= -0.5;
      expect_near(a.values(), expected, tolerance(dtype), 0);
      EXPECT_TRUE(a.canaries_alive() && out.canaries_alive());
    }
}

TEST(Elementwise, SumsInDouble) {
  const OnCpu cpu;
  for (const DType dtype : kFloats)
    for (const Shape& shape : {Shape{10000}, Shape{9000, 1}, Shape{500, 20}, Shape{3, 9000}, Shape{2, 30, 50}, Shape{0}, Shape{0, 4}}) {
      const Operand x = random_operand(shape, dtype, 1, shape.rank > 1 ? 2 : 0);
      double total = 0, squares = 0;
      for (const double v : x.values()) total += v, squares += v * v;
      EXPECT_NEAR(sum(cpu, x), total, 1e-13 * squares);
      EXPECT_NEAR(sum_of_squares(cpu, x), squares, 1e-13 * squares);
    }
  const Operand ones({1 << 25}, DType::f32, Numbers(1 << 25, 1.));  // more than 2^24: fp32 would lose count
  EXPECT_EQ(sum(cpu, ones), 1 << 25);
}

TEST(Elementwise, SumsOfAStridedMatrixAreThoseOfItsCopy) {
  const OnCpu cpu;
  const Operand x = random_operand({300, 70}, DType::f32, 1, 9), copy({300, 70}, DType::f32, x.values());
  EXPECT_EQ(sum_of_squares(cpu, x), sum_of_squares(cpu, copy));
}

}  // namespace
}  // namespace af
