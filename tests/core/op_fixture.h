// Operands for the tests of the operations: numbers in double on the test's side, tensors of any type and row stride on
// the other; the room between rows is filled with a canary.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <concepts>
#include <functional>
#include <random>
#include <vector>

#include "core/kernel.h"
#include "core/memory.h"

namespace af::testing {
using Numbers = std::vector<double>;

inline double get(const Tensor& t, i64 i) {  // element i of the memory
  switch (t.dtype) {
    case DType::f32:
      return static_cast<const float*>(t.data)[i];
    case DType::bf16:
      return static_cast<const bf16*>(t.data)[i];
    case DType::f64:
      return static_cast<const double*>(t.data)[i];
    case DType::i32:
      return static_cast<const std::int32_t*>(t.data)[i];
    case DType::i64:
      return double(static_cast<const i64*>(t.data)[i]);
  }
  return 0;
}
inline void put(const Tensor& t, i64 i, double v) {
  switch (t.dtype) {
    case DType::f32:
      static_cast<float*>(t.data)[i] = float(v);
      break;
    case DType::bf16:
      static_cast<bf16*>(t.data)[i] = bf16(float(v));
      break;
    case DType::f64:
      static_cast<double*>(t.data)[i] = v;
      break;
    case DType::i32:
      static_cast<std::int32_t*>(t.data)[i] = std::int32_t(v);
      break;
    case DType::i64:
      static_cast<i64*>(t.data)[i] = i64(v);
      break;
  }
}

// A tensor with its memory; pad: elements between one row and the next.
class Operand {
 public:
  static constexpr double kCanary = 1234;
  Operand(const Shape& shape, DType dtype) : Operand(shape, dtype, 0) {}
  template <std::integral Pad>  // so that a list of one value is not taken for it
  Operand(const Shape& shape, DType dtype, Pad pad) {
    tensor_ = Tensor(nullptr, dtype, shape);
    tensor_.stride += pad;
    const i64 elements = tensor_.rows() * tensor_.stride + 1;
    memory_.resize(std::size_t(elements) * size_of(dtype) / sizeof(Line) + 1);
    tensor_.data = memory_.data();
    for (i64 i = 0; i < elements; ++i) put(tensor_, i, kCanary);
  }
  Operand(const Shape& shape, DType dtype, const Numbers& values, i64 pad = 0) : Operand(shape, dtype, pad) { set(values); }

  operator const Tensor&() const { return tensor_; }
  const Tensor& tensor() const { return tensor_; }
  void set(const Numbers& values) {
    ASSERT_EQ(i64(values.size()), tensor_.numel());
    for (i64 i = 0; i < i64(values.size()); ++i) put(tensor_, at(i), values[std::size_t(i)]);
  }
  Numbers values() const {
    Numbers v(std::size_t(tensor_.numel()));
    for (i64 i = 0; i < i64(v.size()); ++i) v[std::size_t(i)] = get(tensor_, at(i));
    return v;
  }
  bool canaries_alive() const {
    const Operand fresh({1}, tensor_.dtype);
    const double canary = get(fresh.tensor_, 0);
    for (i64 r = 0; r < tensor_.rows(); ++r)
      for (i64 c = tensor_.cols(); c < tensor_.stride; ++c)
        if (get(tensor_, r * tensor_.stride + c) != canary) return false;
    return get(tensor_, tensor_.rows() * tensor_.stride) == canary;
  }

 private:
  struct alignas(64) Line {
    char bytes[64];
  };
  i64 at(i64 i) const { return tensor_.cols() ? i / tensor_.cols() * tensor_.stride + i % tensor_.cols() : 0; }
  std::vector<Line> memory_;
  Tensor tensor_;
};

inline Numbers normal(i64 n, unsigned seed, double scale = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> distribution(0, scale);
  Numbers v(static_cast<std::size_t>(n));
  for (double& x : v) x = distribution(generator);
  return v;
}
inline Numbers below(i64 n, unsigned seed, int limit) {  // integers in [0, limit)
  std::mt19937 generator(seed);
  Numbers v(static_cast<std::size_t>(n));
  for (double& x : v) x = double(generator() % unsigned(limit));
  return v;
}
inline Operand random_operand(const Shape& shape, DType dtype, unsigned seed, i64 pad = 0, double scale = 1) {
  return Operand(shape, dtype, normal(shape.numel(), seed, scale), pad);
}

// Relative rounding of a type, with room for a handful of operations.
inline double tolerance(DType dtype) { return dtype == DType::f64 ? 1e-13 : dtype == DType::f32 ? 2e-6 : 1.2e-2; }

// |a - b| <= tolerance * (|b| + scale) everywhere.
inline void expect_near(const Numbers& a, const Numbers& b, double tolerance, double scale = 1) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    ASSERT_LE(std::abs(a[i] - b[i]), tolerance * (std::abs(b[i]) + scale)) << "element " << i << ": " << a[i] << " instead of " << b[i];
}

// `gradient` of `loss` at x against central differences, everywhere.
inline void expect_gradient(const std::function<double(const Numbers&)>& loss, const Numbers& x, const Numbers& gradient, double tolerance = 1e-7) {
  ASSERT_EQ(x.size(), gradient.size());
  const double h = 1e-5;
  for (std::size_t i = 0; i < x.size(); ++i) {
    Numbers up = x, down = x;
    up[i] += h;
    down[i] -= h;
    const double expected = (loss(up) - loss(down)) / (2 * h);
    ASSERT_NEAR(gradient[i], expected, tolerance * (1 + std::abs(expected))) << "element " << i;
  }
}
inline double dot(const Numbers& a, const Numbers& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

struct OnCpu {
  Arena scratch{Device{}, "scratch"};
  Context context;
  explicit OnCpu(int threads = 1) : context{Device{Device::Type::cpu, threads}, scratch} {}
  operator const Context&() const { return context; }
};

constexpr DType kFloats[] = {DType::f32, DType::bf16, DType::f64};

}  // namespace af::testing
