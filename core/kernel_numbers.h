// The numbers that kernels compute with: bf16, and elementary functions that are the same on every machine.
// A part of core/kernel.h, which is what to include.
#pragma once
#include "core/tensor.h"

namespace af {

struct bf16 {  // for storage; arithmetic happens in float
  std::uint16_t raw;
  bf16() = default;
  AF_HD bf16(float f) : raw(round_to_bf16(f)) {}
  AF_HD operator float() const { return bits<float>(std::uint32_t(raw) << 16); }
};

// What a T is computed in: float for bf16, T itself otherwise.
template <class T>
using Acc = std::conditional_t<std::is_same_v<std::remove_const_t<T>, bf16>, float, std::remove_const_t<T>>;

// e^x to 1e-7 for |x| < 87, beyond that clamped; NaN stays NaN. Branch-free, the same on every machine.
AF_HD float exponential(float x) {
  float y = x < -87.f ? -87.f : x;
  y = y > 88.f ? 88.f : y;
  const float t = y * 1.44269504f + 12582912.f;  // 1.5 * 2^23: the low mantissa bits now hold k = round(x / ln 2)
  const float k = t - 12582912.f;
  const float r = (y - k * 0.693359375f) + k * 2.12194440e-4f;
  const float p = 1.f + r * (1.f + r * (0.49999994f + r * (0.166665092f + r * (0.0416685268f + r * (0.00837013498f + r * 0.00138116628f)))));
  const float e = bits<float>(bits<std::uint32_t>(p) + (bits<std::uint32_t>(t) << 23));
  return x == x ? e : x;
}
AF_HD double exponential(double x) { return ::exp(x); }
template <class A>
AF_HD A sigmoid(A x) {
  return A(1) / (A(1) + exponential(-x));
}
// cos(2 pi u) for u in [0, 1), to 1e-15: with u = h / 2 + v, |v| <= 1/4, it is (-1)^h (1 - 2 sin^2(pi v)). Every fma is
// written out, so that it is the same bits everywhere.
AF_HD double cos_turns(double u) {
  const double h = u < 0.25 ? 0. : u < 0.75 ? 0.5 : 1.;
  const double x = 3.14159265358979324 * (u - h), q = x * x;
  double sum = 1. / 355687428096000;  // x^17 / 17!, and so on down
  sum = fma(sum, q, -1. / 1307674368000);
  sum = fma(sum, q, 1. / 6227020800);
  sum = fma(sum, q, -1. / 39916800);
  sum = fma(sum, q, 1. / 362880);
  sum = fma(sum, q, -1. / 5040);
  sum = fma(sum, q, 1. / 120);
  sum = fma(sum, q, -1. / 6);
  const double sine = fma(x * q, sum, x);
  const double cosine = fma(-2 * sine, sine, 1.);
  return h == 0.5 ? -cosine : cosine;
}

AF_HD float logarithm(float x) { return ::logf(x); }
AF_HD double logarithm(double x) { return ::log(x); }
AF_HD float root(float x) { return ::sqrtf(x); }
AF_HD double root(double x) { return ::sqrt(x); }

template <class T>
AF_HD constexpr T lowest() {  // -infinity, or the least int
  if constexpr (std::is_same_v<T, int>) {
    return INT_MIN;
  } else {
    return -HUGE_VAL;
  }
}

// f(Type<T>{}) for the float type that dtype names.
template <class T>
struct Type {
  using type = T;
};
template <class F>
void dispatch(DType dtype, F f) {
  AF_CHECK(is_float(dtype), "a {} tensor where a floating-point one is needed", name_of(dtype));
  if (dtype == DType::f32) return f(Type<float>{});
  if (dtype == DType::bf16) return f(Type<bf16>{});
  f(Type<double>{});
}
template <class F>
void dispatch_accumulator(DType dtype, F f) {  // float or double
  AF_CHECK(is_float(dtype) && dtype == accumulator_of(dtype), "a {} tensor where float32 or float64 is needed", name_of(dtype));
  if (dtype == DType::f32) return f(Type<float>{});
  f(Type<double>{});
}

}  // namespace af
