// Products of matrices cut into tiles that threads take one by one: the engine of matmul and grouped matmul on the CPU.
#pragma once
#include <cstdint>
#include <span>

#include "core/memory.h"

namespace af::micro {

// A matrix seen along its free index x (a row or column of C) and the summed index k.
struct Factor {
  const void* data;
  DType dtype;
  std::int64_t stride;    // elements between neighbours of the index that is not contiguous
  bool depth_contiguous;  // element (x, k) is data[x * stride + k], otherwise data[k * stride + x]
};

// C [rows, cols] (=, +=) sum over k < depth of left(i, k) right(j, k); element (i, j) of C is c[i * c_stride + j].
struct Product {
  Factor left, right;
  std::int64_t rows, cols, depth;
  void* c;
  DType c_dtype;
  std::int64_t c_stride;
  bool add;
  bool transposed = false;  // element (i, j) of C is c[j * c_stride + i]; then not with add
};

// All of them, of the same types, none writing where another reads or writes. Threads wake only where it pays.
// An element's bits depend on its own factors and depth alone: K is cut by K alone, and its pieces are added in order.
void multiply_all(const Context& context, std::span<const Product> products);

}  // namespace af::micro
