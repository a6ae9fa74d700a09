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

// A matrix of `vectors` vectors a row is cut into panels of at most kVectors: as even as they go, since a narrow panel is slow.
struct Panels {
  int vectors, count;
  explicit Panels(int vectors) : vectors(vectors), count((vectors + simd::kVectors - 1) / simd::kVectors) {}
  int begin(int p) const { return p * (vectors / count) + std::min(p, vectors % count); }
  int width(int p) const { return vectors / count + (p < vectors % count); }
};

// The right operand [depth, cols]: either panels one after the other, each [depth, width], or rows at a stride.
template <class T>
struct Right {
  const T* data;
  std::int64_t stride;  // 0: in panels, otherwise elements from row to row
  std::int64_t depth;   // of the whole panel
  const T* panel(const Panels& panels, int p) const {
    return data + std::int64_t(panels.begin(p)) * simd::kLanes<T> * (stride ? 1 : depth);
  }
  std::int64_t panel_stride(const Panels& panels, int p) const { return stride ? stride : panels.width(p) * simd::kLanes<T>; }
  Right from_depth(const Panels&, std::int64_t k) const { return {data + k * stride, stride, depth}; }  // of rows only
};

// c [rows, cols] (=, +=) left [rows, depth] right [depth, cols]; elements beyond cols are neither read nor written in c;
// right is read in whole vectors.
template <class T>
void multiply(std::int64_t rows, std::int64_t cols, std::int64_t depth, Left<T> left, Right<T> right, T* c, std::int64_t c_stride, bool add);

// Packing into panels, converted to T, the last vector of a row padded by zeros. S: float, double or simd::bf16_bits.
// from[k * stride + j] (rows of the result lie in rows) or from[j * stride + k] (in columns, to be transposed).
template <class T, class S>
void pack_rows(const S* from, std::int64_t stride, std::int64_t depth, std::int64_t cols, T* to);
template <class T, class S>
void pack_columns(const S* from, std::int64_t stride, std::int64_t depth, std::int64_t cols, T* to);
// A plain copy: to [rows, to_stride], columns up to the next whole vector padded by zeros.
template <class T, class S>
void copy_rows(const S* from, std::int64_t stride, std::int64_t rows, std::int64_t cols, T* to, std::int64_t to_stride);

}  // namespace af::micro
