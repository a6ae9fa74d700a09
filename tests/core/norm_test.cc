#include "core/ops/norm.h"

#include "tests/core/op_fixture.h"

namespace af {
namespace {
using namespace testing;

Numbers naive_rms_norm(const Numbers& x, const Numbers& w, double eps, Numbers* rstd = nullptr) {
  const std::size_t h = w.size();
  Numbers y(x.size());
  for (std::size_t r = 0; r < x.size() / h; ++r) {
    double squares = 0;
    for (std::size_t c = 0; c < h; ++c) squares += x[r * h + c] * x[r * h + c];
    const double s = 1 / std::sqrt(squares / double(h) + eps);
    for (std::size_t c = 0; c < h; ++c) y[r * h + c] = x[r * h + c] * s * w[c];
    if (rstd) rstd->push_back(s);
  }
  return y;
}

TEST(RmsNorm, EqualsTheFormula) {
  const OnCpu cpu;
  for (const DType dtype : kFloats)
    for (const i64 h : {1, 20, 128, 257}) {
      const Operand x = random_operand({5, h}, dtype, 1, 3), w = random_operand({h}, dtype, 2), y({5, h}, dtype, 7), rstd({5}, accumulator_of(dtype));
      rms_norm(cpu, x, w, 1e-5, y, rstd);
      Numbers expected_rstd;
      expect_near(y.values(), naive_rms_norm(x.values(), w.values(), 1e-5, &expected_rstd), tolerance(dtype), 0.1);
      expect_near(rstd.values(), expected_rstd, tolerance(accumulator_of(dtype)));
      EXPECT_TRUE(y.canaries_alive() && rstd.canaries_alive());
    }
}

TEST(RmsNorm, BackwardIsTheGradient) {
  const OnCpu cpu;
  const i64 t = 21, h = 20;  // three chunks of rows
  const Operand x = random_operand({t, h}, DType::f64, 1, 2), w = random_operand({h}, DType::f64, 2), dy = random_operand({t, h}, DType::f64, 3, 1);
  Operand y({t, h}, DType::f64), rstd({t}, DType::f64), dx({t, h}, DType::f64, 5), dw({h}, DType::f64, Numbers(std::size_t(h), 0.5));
  rms_norm(cpu, x, w, 1e-5, y, rstd);
  rms_norm_backward(cpu, dy, x, w, rstd, dx, Accumulate::no, dw);
  expect_gradient([&](const Numbers& v) { return dot(naive_rms_norm(v, w.values(), 1e-5), dy.values()); }, x.values(), dx.values());
  Numbers added = dw.values();
  for (double& v : added) v -= 0.5;
  expect_gradient([&](const Numbers& v) { return dot(naive_rms_norm(x.values(), v, 1e-5), dy.values()); }, w.values(), added);
  EXPECT_TRUE(dx.canaries_alive() && dw.canaries_alive());

  const Numbers once = dx.values();
  rms_norm_backward(cpu, dy, x, w, rstd, dx, Accumulate::yes, dw);
  for (std::size_t i = 0; i < once.size(); ++i) ASSERT_NEAR(dx.values()[i], 2 * once[i], 1e-13);
}

// fp32 and bf16 against fp64 on the same numbers.
TEST(RmsNorm, BackwardInOtherTypes) {
  const OnCpu cpu;
  const i64 t = 40, h = 257;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Operand x = random_operand({t, h}, dtype, 1), w = random_operand({h}, dtype, 2), dy = random_operand({t, h}, dtype, 3);
    Numbers outputs[2];
    for (const DType in : {dtype, DType::f64}) {
      const Operand xi({t, h}, in, x.values()), wi({h}, in, w.values()), di({t, h}, in, dy.values());
      const Operand y({t, h}, in), rstd({t}, accumulator_of(in)), dx({t, h}, in), dw({h}, accumulator_of(in), Numbers(std::size_t(h), 0.));
      rms_norm(cpu, xi, wi, 1e-6, y, rstd);
      rms_norm_backward(cpu, di, xi, wi, rstd, dx, Accumulate::no, dw);
      if (in == dtype) {
        outputs[0] = dx.values(), outputs[1] = dw.values();
      } else {
        expect_near(outputs[0], dx.values(), tolerance(dtype));
        expect_near(outputs[1], dw.values(), 1e-5);  // added in fp32 for both
      }
    }
  }
}

TEST(RmsNorm, NoRows) {
  const OnCpu cpu;
  const Operand x({0, 8}, DType::f32), w({8}, DType::f32, Numbers(8, 1.)), rstd({0}, DType::f32), dw({8}, DType::f32, Numbers(8, 3.));
  rms_norm(cpu, x, w, 1e-6, x, rstd);
  rms_norm_backward(cpu, x, x, w, rstd, x, Accumulate::no, dw);
  EXPECT_EQ(dw.values(), Numbers(8, 3.));
}

// ------------------------------------------------------------------------------------ heads, with RoPE
struct HeadCase {
  i64 t = 9, heads = 3, d = 20, positions = 16;
  double eps = 1e-6;
  Numbers at = below(9, 4, 16), cos = normal(16 * 10, 5), sin = normal(16 * 10, 6);  // any tables: the formula is linear in them

  Numbers naive(const Numbers& x, const Numbers& w) const {
    Numbers y(x.size());
    for (i64 r = 0; r < t * heads; ++r) {
      const Numbers row(x.begin() + r * d, x.begin() + (r + 1) * d);
      const Numbers n = naive_rms_norm(row, w, eps);
      const i64 p = i64(at[std::size_t(r / heads)]);
      for (i64 i = 0; i < d / 2; ++i) {
        const double c = cos[std::size_t(p * d / 2 + i)], s = sin[std::size_t(p * d / 2 + i)], a = n[std::size_t(i)], b = n[std::size_t(i + d / 2)];
        y[std::size_t(r * d + i)] = a * c - b * s;
        y[std::size_t(r * d + i + d / 2)] = b * c + a * s;
      }
    }
    return y;
  }
};

TEST(HeadNormRope, EqualsTheFormula) {
  const OnCpu cpu;
  const HeadCase k;
  for (const DType dtype : kFloats) {
    const DType acc = accumulator_of(dtype);
    const Operand x = random_operand({k.t, k.heads, k.d}, dtype, 1, 11), w = random_operand({k.d}, dtype, 2);
    const Operand cos({k.positions, k.d / 2}, acc, k.cos), sin({k.positions, k.d / 2}, acc, k.sin), at({k.t}, DType::i32, k.at);
    const Operand y({k.t, k.heads, k.d}, dtype, 6), rstd({k.t, k.heads}, acc);
    head_norm_rope(cpu, x, {w, cos, sin, at, k.eps}, y, rstd);
    expect_near(y.values(), k.naive(x.values(), w.values()), tolerance(dtype));
    EXPECT_TRUE(y.canaries_alive() && rstd.canaries_alive());
  }
}

TEST(HeadNormRope, BackwardIsTheGradient) {
  const OnCpu cpu;
  const HeadCase k;
  const Operand x = random_operand({k.t, k.heads, k.d}, DType::f64, 1, 11), w = random_operand({k.d}, DType::f64, 2);
  const Operand dy = random_operand({k.t, k.heads, k.d}, DType::f64, 3, 2);
  const Operand cos({k.positions, k.d / 2}, DType::f64, k.cos), sin({k.positions, k.d / 2}, DType::f64, k.sin), at({k.t}, DType::i32, k.at);
  const Operand y({k.t, k.heads, k.d}, DType::f64), rstd({k.t, k.heads}, DType::f64), dx({k.t, k.heads, k.d}, DType::f64, 4);
  const Operand dw({k.d}, DType::f64, Numbers(std::size_t(k.d), 0.));
  head_norm_rope(cpu, x, {w, cos, sin, at, k.eps}, y, rstd);
  head_norm_rope_backward(cpu, dy, x, {w, cos, sin, at, k.eps}, rstd, dx, dw);
  expect_gradient([&](const Numbers& v) { return dot(k.naive(v, w.values()), dy.values()); }, x.values(), dx.values());
  expect_gradient([&](const Numbers& v) { return dot(k.naive(x.values(), v), dy.values()); }, w.values(), dw.values());
  EXPECT_TRUE(dx.canaries_alive() && dw.canaries_alive());

  for (const DType dtype : {DType::f32, DType::bf16}) {  // the others against fp64 on the numbers that they hold
    const DType acc = accumulator_of(dtype);
    const Operand xt({k.t, k.heads, k.d}, dtype, x.values()), wt({k.d}, dtype, w.values()), dyt({k.t, k.heads, k.d}, dtype, dy.values());
    const Operand ct({k.positions, k.d / 2}, acc, k.cos), st({k.positions, k.d / 2}, acc, k.sin);
    const Operand yt({k.t, k.heads, k.d}, dtype), rt({k.t, k.heads}, acc), dxt({k.t, k.heads, k.d}, dtype, 3);
    const Operand dwt({k.d}, acc, Numbers(std::size_t(k.d), 0.));
    head_norm_rope(cpu, xt, {wt, ct, st, at, k.eps}, yt, rt);
    head_norm_rope_backward(cpu, dyt, xt, {wt, ct, st, at, k.eps}, rt, dxt, dwt);
    expect_near(dxt.values(), dx.values(), 2 * tolerance(dtype), 3);  // inputs were rounded as well
    expect_near(dwt.values(), dw.values(), 2 * tolerance(dtype), 3);
  }
}

}  // namespace
}  // namespace af
