// The micro-kernel under matmul and attention, and what it reads: a broadcast left operand with any strides and a right
// operand whose rows are vectors.
// Every element of C is one chain of fused multiply-adds over k, in order, and then one addition to C: the result does
// not depend on the sizes or the place of the block that it is computed in.
#pragma once
#include <algorithm>
#include <cstdint>

#include "core/simd.h"

namespace af::micro {

// op(A): element (i, k) is data[i * row + k * depth].
template <class T>
struct Left {
  const T* data;
  std::int64_t row, depth;
  Left from_row(std::int64_t i) const { return {data + i * row, row, depth}; }
  Left from_depth(std::int64_t k) const { return {data + k * depth, row, depth}; }
};

// A matrix of `vectors` vectors a row is cut into panels of at most kVectors, as even as they go.
struct Panels {
  int vectors, count;
  constexpr explicit Panels(int vectors) : vectors(vectors), count((vectors + simd::kVectors - 1) / simd::kVectors) {}
  constexpr int begin(int p) const { return p * (vectors / count) + std::min(p, vectors % count); }
  constexpr int width(int p) const { return vectors / count + (p < vectors % count); }
};

// Rows are taken in groups of at most `most`, as even as they go: 9 rows are 4 and 5, since a narrow group is slow.
struct Groups {
  std::int64_t rows, count;
  explicit Groups(std::int64_t rows, int most = simd::kRows) : rows(rows), count((rows + most - 1) / most) {}
  std::int64_t begin(std::int64_t g) const { return g * rows / count; }
};

// How many rows to pass through multiply() at a time where one product is as wide as a full panel and another `vectors` wide:
// whole groups for both.
constexpr int group_rows(int vectors) { return Panels(vectors).width(0) == simd::kVectors ? simd::kRows : 3 * simd::kRows; }

// The right operand [depth, cols]: rows at a stride, or (stride 0) panels one after the other, each [depth, width].
template <class T>
struct Right {
  const T* data;
  std::int64_t depth, cols, stride = 0;
  Right from_depth(std::int64_t k) const { return {data + k * stride, depth - k, cols, stride}; }  // not of panels
};

// c [rows, cols] (=, +=) left [rows, depth] right [depth, cols]: the first rows and columns, if the right operand has more.
// Elements beyond cols are neither read nor written in c; right is read in whole vectors.
template <class T>
void multiply(std::int64_t rows, std::int64_t cols, std::int64_t depth, Left<T> left, Right<T> right, T* c, std::int64_t c_stride, bool add);

// Packing into panels, converted to T, the last vector of a row padded by zeros. S: T or, for float, simd::bf16_bits.
// Element (k, j) is from[k * stride + j] (pack_rows) or from[j * stride + k] (pack_columns, which transposes).
template <class T, class S>
Right<T> pack_rows(const S* from, std::int64_t stride, std::int64_t depth, std::int64_t cols, T* to);
template <class T, class S>
Right<T> pack_columns(const S* from, std::int64_t stride, std::int64_t depth, std::int64_t cols, T* to);

// Plain copies of rows that convert. `load_rows` pads to the next whole vector by zeros, `store_rows` writes cols elements.
template <class T, class S>
void load_rows(const S* from, std::int64_t stride, std::int64_t rows, std::int64_t cols, T* to, std::int64_t to_stride);
template <class T, class S>
void store_rows(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t cols, S* to, std::int64_t to_stride);
// The same, transposed: to[j * to_stride + i] = from[i * stride + j].
template <class T, class S>
void store_columns(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t cols, S* to, std::int64_t to_stride);

}  // namespace af::micro
