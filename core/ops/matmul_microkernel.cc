#include "core/ops/matmul_microkernel.h"

#include <utility>

namespace af::micro {
namespace {
using simd::kLanes;

using simd::kVectors;
using simd::Vector;

// R rows by V vectors of C stay in registers while k runs. `tail`: columns of the last vector that exist. What will be needed
// next is fetched into the second cache from `next` on, next_step elements further with every k.
template <class T, int R, int V>
void kernel(std::int64_t depth, Left<T> left, const T* right, std::int64_t right_stride, T* c, std::int64_t c_stride, int tail, bool add,
            const T* next, std::int64_t next_step) {
  if (add) {  // what is added to in the end comes while the sums are made
    T* p = c;
#pragma GCC unroll 1
    for (int i = 0; i < R; ++i, p += c_stride) {
#pragma GCC unroll 4
      for (int j = 0; j < V; ++j) __builtin_prefetch(p + j * kLanes<T>, 1);
    }
  }
  Vector<T> sum[R][V];
#pragma GCC unroll 24
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) sum[i][j] = Vector<T>{};
  }
  // Four rows to a pointer, at 0, 1, 2 and 3 strides from it: registers for addresses are as few as those for numbers.
  const std::int64_t row = left.row, row3 = 3 * row;
  const T* a[(R + 3) / 4];
#pragma GCC unroll 24
  for (int i = 0; i < R; i += 4) a[i / 4] = left.data + i * row;
  for (std::int64_t k = 0; k < depth; ++k, right += right_stride) {
    __builtin_prefetch(next, 0, 2);
    next += next_step;
    Vector<T> b[V];
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) b[j] = simd::load(right + j * kLanes<T>);
#pragma GCC unroll 24
    for (int i = 0; i < R; ++i) {
      Vector<T> x = simd::splat(a[i / 4][i % 4 == 3 ? row3 : i % 4 * row]);
#pragma GCC unroll 4
      for (int j = 0; j < V; ++j) sum[i][j] += x * b[j];
    }
#pragma GCC unroll 24
    for (int i = 0; i < R; i += 4) a[i / 4] += left.depth;
  }
#pragma GCC unroll 24
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) {
      T* p = c + j * kLanes<T>;
      if (j < V - 1 || tail == kLanes<T>) {
        simd::store(p, add ? simd::load(p) + sum[i][j] : sum[i][j]);
      } else {
        simd::store_first(p, add ? simd::load_first(p, tail) + sum[i][j] : sum[i][j], tail);
      }
    }
    c += c_stride;
  }
}

template <class T>
using Kernel = void (*)(std::int64_t, Left<T>, const T*, std::int64_t, T*, std::int64_t, int, bool, const T*, std::int64_t);
template <class T, int V, int... I>
constexpr Kernel<T> kernel_of(int rows, std::integer_sequence<int, I...>) {
  constexpr Kernel<T> table[] = {&kernel<T, I + 1, V>...};
  return table[rows - 1];
}
template <class T, int V = 1>
Kernel<T> kernel_of(int rows, int vectors) {
  if constexpr (V < kVectors) {
    if (vectors > V) return kernel_of<T, V + 1>(rows, vectors);
  }
  return kernel_of<T, V>(rows, std::make_integer_sequence<int, simd::rows_of(V)>());
}
}  // namespace

template <class T>
void multiply(std::int64_t rows, std::int64_t cols, std::int64_t depth, Left<T> left, Right<T> right, T* c, std::int64_t c_stride, bool add) {
  constexpr int L = kLanes<T>;
  const Panels panels(int(simd::padded<T>(right.cols) / L));
  const Groups groups(rows, simd::rows_of(panels.width(0)));
  for (std::int64_t g = 0; g < groups.count; ++g) {
    const std::int64_t begin = groups.begin(g), end = groups.begin(g + 1);
    for (int p = 0; p < panels.count; ++p) {
      const std::int64_t column = std::int64_t(panels.begin(p)) * L, left_cols = cols - column;
      if (left_cols <= 0) break;
      const int width = int(std::min<std::int64_t>(panels.width(p), (left_cols + L - 1) / L));
      const int tail = int(std::min<std::int64_t>(L, left_cols - (width - 1) * L));
      const T* panel = right.data + column * (right.stride ? 1 : right.depth);
      const std::int64_t stride = right.stride ? right.stride : panels.width(p) * L;
      const bool fetch = p == 0 && left.row == depth;  // the rows after these follow in memory
      kernel_of<T>(int(end - begin), width)(depth, left.from_row(begin), panel, stride, c + begin * c_stride + column, c_stride, tail, add,
                                            left.data + end * left.row, fetch ? end - begin : 0);
    }
  }
}

template <class T, class S>
void load_rows(const S* from, std::int64_t stride, std::int64_t rows, std::int64_t cols, T* to, std::int64_t to_stride) {
  constexpr int L = kLanes<T>;
  const std::int64_t whole = cols / L * L;
  for (std::int64_t i = 0; i < rows; ++i, from += stride, to += to_stride) {
    for (std::int64_t j = 0; j < whole; j += L) simd::store(to + j, simd::load(from + j));
    if (whole < cols) simd::store(to + whole, simd::load_first(from + whole, int(cols - whole)));
  }
}

template <class T, class S>
void store_rows(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t cols, S* to, std::int64_t to_stride) {
  constexpr int L = kLanes<T>;
  const std::int64_t whole = cols / L * L;
  for (std::int64_t i = 0; i < rows; ++i, from += stride, to += to_stride) {
    for (std::int64_t j = 0; j < whole; j += L) simd::store(to + j, simd::load(from + j));
    if (whole < cols) simd::store_first(to + whole, simd::load_first(from + whole, int(cols - whole)), int(cols - whole));
  }
}

template <class T, class S>
Right<T> pack_rows(const S* from, std::int64_t stride, std::int64_t depth, std::int64_t cols, T* to) {
  const Panels panels(int(simd::padded<T>(cols) / kLanes<T>));
  constexpr std::int64_t kStrip = 16;
  for (std::int64_t k = 0; k < depth; k += kStrip)  // nearly whole rows of `from` at a time, as memory likes it
    for (int p = 0; p < panels.count; ++p) {
      const std::int64_t column = std::int64_t(panels.begin(p)) * kLanes<T>, width = std::int64_t(panels.width(p)) * kLanes<T>;
      load_rows(from + k * stride + column, stride, std::min(kStrip, depth - k), std::min(width, cols - column), to + column * depth + k * width,
                width);
    }
  return {to, depth, cols};
}

template <class T, class S>
Right<T> pack_columns(const S* from, std::int64_t stride, std::int64_t depth, std::int64_t cols, T* to) {
  constexpr int L = kLanes<T>;
  const Panels panels(int(simd::padded<T>(cols) / L));
  for (int p = 0; p < panels.count; ++p) {
    const std::int64_t width = std::int64_t(panels.width(p)) * L;
    T* panel = to + std::int64_t(panels.begin(p)) * L * depth;
    for (int v = 0; v < panels.width(p); ++v) {
      const std::int64_t column = std::int64_t(panels.begin(p) + v) * L;
      const int n = int(std::min<std::int64_t>(L, cols - column));
      for (std::int64_t k = 0; k < depth; k += L) {
        const int d = int(std::min<std::int64_t>(L, depth - k));
        const S* corner = from + column * stride + k;
        Vector<T> square[L];
        if (n == L && d == L) {
#pragma GCC unroll 16
          for (int i = 0; i < L; ++i) square[i] = simd::load(corner + i * stride);
          simd::transpose<T>(square);
#pragma GCC unroll 16
          for (int i = 0; i < L; ++i) simd::store(panel + (k + i) * width + v * L, square[i]);
        } else {
          for (int i = 0; i < L; ++i) square[i] = i < n ? simd::load_first(corner + i * stride, d) : Vector<T>{};
          simd::transpose<T>(square);
          for (int i = 0; i < d; ++i) simd::store(panel + (k + i) * width + v * L, square[i]);
        }
      }
    }
  }
  return {to, depth, cols};
}

template <class T, class S>
void store_columns(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t cols, S* to, std::int64_t to_stride) {
  constexpr int L = kLanes<T>;
  for (std::int64_t i = 0; i < rows; i += L)
    for (std::int64_t j = 0; j < cols; j += L) {
      const int n = int(std::min<std::int64_t>(L, rows - i)), m = int(std::min<std::int64_t>(L, cols - j));
      Vector<T> square[L];
      if (n == L && m == L) {
#pragma GCC unroll 16
        for (int r = 0; r < L; ++r) square[r] = simd::load(from + (i + r) * stride + j);
        simd::transpose<T>(square);
#pragma GCC unroll 16
        for (int r = 0; r < L; ++r) simd::store(to + (j + r) * to_stride + i, square[r]);
      } else {
        for (int r = 0; r < L; ++r) square[r] = r < n ? simd::load_first(from + (i + r) * stride + j, m) : Vector<T>{};
        simd::transpose<T>(square);
        for (int r = 0; r < m; ++r) simd::store_first(to + (j + r) * to_stride + i, square[r], n);
      }
    }
}

#define AF_INSTANTIATE(T, S)                                                                      \
  template Right<T> pack_rows(const S*, std::int64_t, std::int64_t, std::int64_t, T*);            \
  template Right<T> pack_columns(const S*, std::int64_t, std::int64_t, std::int64_t, T*);         \
  template void load_rows(const S*, std::int64_t, std::int64_t, std::int64_t, T*, std::int64_t);  \
  template void store_rows(const T*, std::int64_t, std::int64_t, std::int64_t, S*, std::int64_t); \
  template void store_columns(const T*, std::int64_t, std::int64_t, std::int64_t, S*, std::int64_t)
AF_INSTANTIATE(float, float);
AF_INSTANTIATE(float, simd::bf16_bits);
AF_INSTANTIATE(double, double);
#undef AF_INSTANTIATE
template void multiply(std::int64_t, std::int64_t, std::int64_t, Left<float>, Right<float>, float*, std::int64_t, bool);
template void multiply(std::int64_t, std::int64_t, std::int64_t, Left<double>, Right<double>, double*, std::int64_t, bool);

}  // namespace af::micro
