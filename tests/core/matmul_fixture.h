// Tensors for the tests of matmul and attention: random numbers of any float type, with room between the rows.
#pragma once
#include <cmath>
#include <random>
#include <vector>

#include "core/memory.h"
#include "core/simd.h"

namespace af::testing {

// A tensor that owns its memory: rows `gap` elements apart more than they are long, everything filled with `filler`.
struct Owned {
  std::vector<double> memory;
  Tensor tensor;

  Owned(const Shape& shape, DType dtype, std::int64_t gap = 0, double filler = 0) {
    tensor = Tensor(nullptr, dtype, shape);
    tensor.stride += gap;
    memory.resize(std::size_t(tensor.rows() * tensor.stride) + 8);
    tensor.data = memory.data();
    for (std::int64_t i = 0; i < tensor.rows() * tensor.stride; ++i) set_flat(i, filler);
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;

  double get_flat(std::int64_t i) const {
    switch (tensor.dtype) {
      case DType::f64:
        return static_cast<const double*>(tensor.data)[i];
      case DType::f32:
        return static_cast<const float*>(tensor.data)[i];
      default:
        return simd::widen(static_cast<const simd::bf16_bits*>(tensor.data)[i]);
    }
  }
  void set_flat(std::int64_t i, double x) {
    switch (tensor.dtype) {
      case DType::f64:
        static_cast<double*>(tensor.data)[i] = x;
        break;
      case DType::f32:
        static_cast<float*>(tensor.data)[i] = float(x);
        break;
      default:
        static_cast<simd::bf16_bits*>(tensor.data)[i] = simd::narrow<simd::bf16_bits>(x);
    }
  }
  double get(std::int64_t i, std::int64_t j) const { return get_flat(i * tensor.stride + j); }
  void set(std::int64_t i, std::int64_t j, double x) { set_flat(i * tensor.stride + j, x); }
  Owned& randomize(unsigned seed, double scale = 1) {  // the rows, not the gaps
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal(0, scale);
    for (std::int64_t i = 0; i < tensor.rows(); ++i)
      for (std::int64_t j = 0; j < tensor.cols(); ++j) set(i, j, normal(generator));
    return *this;
  }
};

struct Machine {  // a context with any number of threads
  Arena arena;
  Context context;
  explicit Machine(int threads = 2) : arena(Device{}, "scratch"), context{Device{Device::Type::cpu, threads, nullptr, 0}, arena} {}
};

}  // namespace af::testing
