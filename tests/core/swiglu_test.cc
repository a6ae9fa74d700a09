#include "core/ops/swiglu.h"

#include "tests/core/op_fixture.h"

namespace af {
namespace {
using namespace testing;

Numbers naive_swiglu(const Numbers& gate_up, const Numbers& scale) {
  const std::size_t rows = scale.size(), f = gate_up.size() / rows / 2;
  Numbers y(rows * f);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < f; ++c) {
      const double g = gate_up[r * 2 * f + c], u = gate_up[r * 2 * f + f + c];
      y[r * f + c] = scale[r] * g / (1 + std::exp(-g)) * u;
    }
  return y;
}

TEST(SwiGlu, EqualsTheFormula) {
  const OnCpu cpu;
  const i64 rows = 6, f = 43;
  for (const DType dtype : kFloats)
    for (const bool scaled : {false, true}) {
      const Operand gate_up = random_operand({rows, 2 * f}, dtype, 1, 5, 4), scale = random_operand({rows}, accumulator_of(dtype), 2),
                    y({rows, f}, dtype, 2);
      swiglu(cpu, gate_up, scaled ? scale.tensor() : Tensor(), y);
      expect_near(y.values(), naive_swiglu(gate_up.values(), scaled ? scale.values() : Numbers(std::size_t(rows), 1.)), tolerance(dtype), 0.1);
      EXPECT_TRUE(y.canaries_alive());
    }
}

TEST(SwiGlu, BackwardIsTheGradient) {
  const OnCpu cpu;
  const i64 rows = 5, f = 11;
  for (const bool scaled : {false, true}) {
    const Operand gate_up = random_operand({rows, 2 * f}, DType::f64, 1, 3, 2), scale = random_operand({rows}, DType::f64, 2);
    const Operand dy = random_operand({rows, f}, DType::f64, 3, 1), d_gate_up({rows, 2 * f}, DType::f64, 2), d_scale({rows}, DType::f64);
    const Numbers one(std::size_t(rows), 1.);
    swiglu_backward(cpu, dy, gate_up, scaled ? scale.tensor() : Tensor(), d_gate_up, scaled ? d_scale.tensor() : Tensor());
    expect_gradient([&](const Numbers& v) { return dot(naive_swiglu(v, scaled ? scale.values() : one), dy.values()); }, gate_up.values(),
                    d_gate_up.values());
    if (scaled)
      expect_gradient([&](const Numbers& v) { return dot(naive_swiglu(gate_up.values(), v), dy.values()); }, scale.values(), d_scale.values());
    EXPECT_TRUE(d_gate_up.canaries_alive() && d_scale.canaries_alive());

    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Operand x({rows, 2 * f}, dtype, gate_up.values(), 1), s({rows}, accumulator_of(dtype), scale.values()), d({rows, f}, dtype, dy.values());
      const Operand dx({rows, 2 * f}, dtype, 4), ds({rows}, accumulator_of(dtype));
      swiglu_backward(cpu, d, x, scaled ? s.tensor() : Tensor(), dx, scaled ? ds.tensor() : Tensor());
      expect_near(dx.values(), d_gate_up.values(), 2 * tolerance(dtype));  // the inputs were rounded as well
      if (scaled) expect_near(ds.values(), d_scale.values(), 2 * tolerance(dtype), 4);
      EXPECT_TRUE(dx.canaries_alive());
    }
  }
}

// The gradient may take the place of gate_up: no bit changes.
TEST(SwiGlu, BackwardInPlace) {
  const OnCpu cpu;
  const i64 rows = 7, f = 43;
  for (const DType dtype : kFloats) {
    const Operand gate_up = random_operand({rows, 2 * f}, dtype, 1, 3, 2), scale = random_operand({rows}, accumulator_of(dtype), 2);
    const Operand dy = random_operand({rows, f}, dtype, 3, 1), d_gate_up({rows, 2 * f}, dtype, 2), d_scale({rows}, accumulator_of(dtype)),
                  d_scale_again({rows}, accumulator_of(dtype));
    swiglu_backward(cpu, dy, gate_up, scale, d_gate_up, d_scale);
    swiglu_backward(cpu, dy, gate_up, scale, gate_up, d_scale_again);
    EXPECT_EQ(gate_up.values(), d_gate_up.values());
    EXPECT_EQ(d_scale_again.values(), d_scale.values());
    EXPECT_TRUE(gate_up.canaries_alive());
  }
}

TEST(SwiGlu, FarFromZeroAndWithoutRows) {
  const OnCpu cpu;
  const Operand far({1, 4}, DType::f32, {-200, 200, 3, 3}), y({1, 2}, DType::f32), d({1, 2}, DType::f32, {1, 1}), dx({1, 4}, DType::f32);
  swiglu(cpu, far, {}, y);
  expect_near(y.values(), {0, 600}, 1e-6, 1e-6);
  swiglu_backward(cpu, d, far, {}, dx, {});
  expect_near(dx.values(), {0, 3, 0, 200}, 1e-6, 1e-6);
  const Operand none({0, 8}, DType::f32), out({0, 4}, DType::f32);
  swiglu(cpu, none, {}, out);
  swiglu_backward(cpu, out, none, {}, none, {});
}

}  // namespace
}  // namespace af
