// For tests of what several ranks compute together: numbers that every rank knows, and results that the ranks hand to the test.
#pragma once
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "parallel/comm_threads.h"
#include "parallel/parameter.h"
#include "tests/core/op_fixture.h"

namespace af::testing {

// What the ranks of one run computed, by name and rank.
class Results {
 public:
  void put(const std::string& name, int rank, const Operand& values) { put(name, rank, values.values()); }
  void put(const std::string& name, int rank, Numbers values) {
    std::lock_guard lock(mutex_);
    all_[{name, rank}] = std::move(values);
  }
  const Numbers& of(const std::string& name, int rank) const { return all_.at({name, rank}); }
  // Of all ranks, one after the other.
  Numbers joined(const std::string& name, int ranks) const {
    Numbers v;
    for (int r = 0; r < ranks; ++r) v.insert(v.end(), of(name, r).begin(), of(name, r).end());
    return v;
  }

 private:
  std::mutex mutex_;
  std::map<std::pair<std::string, int>, Numbers> all_;
};

inline void on_ranks(int n, const std::function<void(const Comm&)>& f) {
  if (n == 1) return f(Comm());
  ThreadOptions options;
  options.comm.timeout_seconds = 20;
  run_ranks(n, options, f);
}

// Rows [begin, end) and columns [begin, end) of a matrix with `cols` columns.
inline Numbers take_rows(const Numbers& x, i64 cols, i64 begin, i64 end) { return {x.begin() + begin * cols, x.begin() + end * cols}; }
inline Numbers take_cols(const Numbers& x, i64 cols, i64 begin, i64 end) {
  Numbers part;
  for (i64 r = 0; r < i64(x.size()) / cols; ++r) part.insert(part.end(), x.begin() + r * cols + begin, x.begin() + r * cols + end);
  return part;
}
// |a - b| <= tolerance of the type times the largest |b|.
inline void expect_close(const Numbers& a, const Numbers& b, DType dtype) {
  double largest = 0;
  for (const double x : b) largest = std::max(largest, std::abs(x));
  expect_near(a, b, dtype == DType::f64 ? 1e-12 : dtype == DType::f32 ? 1e-5 : 2.5e-2, largest);
}
// A parameter with memory: the part of `whole` that its slab describes; the gradient begins with `before`.
struct OwnParameter {
  OwnParameter(Parameter description, const Numbers& whole, double before, DType dtype)
      : parameter(std::move(description)), value(parameter.shape, dtype, part(whole)), gradient(parameter.shape, accumulator_of(dtype)) {
    gradient.set(Numbers(std::size_t(parameter.numel()), before));
    parameter.value = value;
    parameter.gradient = gradient;
  }
  Numbers part(const Numbers& whole) const {
    const Slab& s = parameter.slabs[0];
    const i64 cols = s.global_shape[1];
    return take_cols(take_rows(whole, cols, s.row_begin, s.row_begin + s.rows), cols, s.col_begin, s.col_begin + s.cols);
  }
  OwnParameter(const OwnParameter&) = delete;
  Parameter parameter;
  Operand value, gradient;
};
// Of values that a type holds exactly, so that every rank's operands are the same numbers.
inline Numbers rounded(const Numbers& x, DType dtype) { return Operand({i64(x.size())}, dtype, x).values(); }
inline Numbers product(const Numbers& a, const Numbers& b, i64 inner) {  // a [M, K] times b^T, b [N, K], in fp64
  const i64 m = i64(a.size()) / inner, n = i64(b.size()) / inner;
  Numbers c(static_cast<std::size_t>(m * n));
  for (i64 i = 0; i < m; ++i)
    for (i64 j = 0; j < n; ++j)
      for (i64 k = 0; k < inner; ++k) c[std::size_t(i * n + j)] += a[std::size_t(i * inner + k)] * b[std::size_t(j * inner + k)];
  return c;
}
inline Numbers transposed(const Numbers& a, i64 cols) {
  const i64 rows = i64(a.size()) / cols;
  Numbers t(a.size());
  for (i64 i = 0; i < rows; ++i)
    for (i64 j = 0; j < cols; ++j) t[std::size_t(j * rows + i)] = a[std::size_t(i * cols + j)];
  return t;
}

}  // namespace af::testing
