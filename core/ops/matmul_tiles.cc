#include "core/ops/matmul_tiles.h"

#include <omp.h>

#include <algorithm>
#include <atomic>

#include "core/ops/matmul_microkernel.h"

namespace af::micro {
namespace {
using simd::bf16_bits;
using simd::kLanes;
using simd::kRows;

// A packed block of the right factor (kDepth x kBlockVectors vectors: 590 KB of AVX-512) stays in the second cache while
// rows of the left factor (kLeftRows x kDepth) pass through the first.
constexpr std::int64_t kDepth = 512, kBlockVectors = 6 * simd::kVectors, kLeftRows = 4 * kRows, kTileRows = 512;
constexpr double kFlopsForThreads = 5e5;  // below: a few microseconds, as long as it takes to wake a thread

// The pieces of K: as few as kDepth allows, as even as they go.
std::int64_t depth_step(std::int64_t depth) {
  const std::int64_t pieces = std::max<std::int64_t>(1, (depth + kDepth - 1) / kDepth);
  return std::max<std::int64_t>(16, ((depth + pieces - 1) / pieces + 15) / 16 * 16);
}

struct Tile {
  std::int64_t rows, cols;
};
Tile tile_of(const Product& p, int lanes, int threads) {
  if (p.rows == 0 || p.cols == 0) return {0, 0};
  const std::int64_t most_cols = kBlockVectors * lanes, panel = simd::kVectors * lanes;
  std::int64_t blocks = (p.cols + most_cols - 1) / most_cols;
  const std::int64_t row_tiles = (p.rows + kTileRows - 1) / kTileRows;
  // Few rows: cut columns finer for the threads, which costs no packing twice.
  while (threads > 1 && blocks * row_tiles < 3 * threads && (p.cols + blocks - 1) / blocks > 2 * panel) ++blocks;
  const std::int64_t cols = (p.cols + blocks - 1) / blocks;
  return {(p.rows + row_tiles - 1) / row_tiles, (cols + lanes - 1) / lanes * lanes};
}

template <class T>
struct Scratch {  // of one thread
  T *right, *left, *c;
};

// f(pointer of the factor's own type); fp64 never meets the others.
template <class T>
void with_type(DType dtype, const void* data, auto f) {
  if constexpr (sizeof(T) == 8) {
    f(static_cast<const double*>(data));
  } else if (dtype == DType::bf16) {
    f(static_cast<const bf16_bits*>(data));
  } else {
    f(static_cast<const float*>(data));
  }
}

template <class T>
Right<T> pack_right(const Factor& f, std::int64_t x, std::int64_t k, std::int64_t cols, std::int64_t depth, T* to) {
  with_type<T>(f.dtype, f.data, [&](auto* data) {
    if (f.depth_contiguous) {
      pack_columns(data + x * f.stride + k, f.stride, depth, cols, to);
    } else {
      pack_rows(data + k * f.stride + x, f.stride, depth, cols, to);
    }
  });
  return {to, depth, cols};
}

// Rows x.. of the left factor: where they lie, or converted.
template <class T>
Left<T> left_rows(const Factor& f, std::int64_t x, std::int64_t k, std::int64_t rows, std::int64_t depth, T* copy) {
  const std::int64_t at = f.depth_contiguous ? x * f.stride + k : k * f.stride + x;
  if (f.dtype == dtype_of<T>::value) {
    const T* data = static_cast<const T*>(f.data) + at;
    return f.depth_contiguous ? Left<T>{data, f.stride, 1} : Left<T>{data, 1, f.stride};
  }
  const std::int64_t stride = simd::padded<T>(f.depth_contiguous ? depth : rows);
  with_type<T>(f.dtype, f.data, [&](auto* data) {
    load_rows(data + at, f.stride, f.depth_contiguous ? rows : depth, f.depth_contiguous ? depth : rows, copy, stride);
  });
  return f.depth_contiguous ? Left<T>{copy, stride, 1} : Left<T>{copy, 1, stride};
}

template <class T>
void multiply_tile(const Product& p, std::int64_t i, std::int64_t rows, std::int64_t j, std::int64_t cols, const Scratch<T>& scratch) {
  const bool in_place = p.c_dtype == dtype_of<T>::value;
  const std::int64_t at = i * p.c_stride + j, c_stride = in_place ? p.c_stride : simd::padded<T>(cols);
  T* c = in_place ? static_cast<T*>(p.c) + at : scratch.c;
  if constexpr (sizeof(T) == 4) {
    if (!in_place && p.add) load_rows(static_cast<const bf16_bits*>(p.c) + at, p.c_stride, rows, cols, scratch.c, c_stride);
  }

  const std::int64_t step = depth_step(p.depth), parts = (rows + kLeftRows - 1) / kLeftRows;
  std::int64_t k = 0;
  do {  // once even where K is 0
    const std::int64_t depth = std::min(step, p.depth - k);
    const Right<T> right = pack_right(p.right, j, k, cols, depth, scratch.right);
    for (std::int64_t part = 0; part < parts; ++part) {
      const std::int64_t begin = part * rows / parts, end = (part + 1) * rows / parts;
      const Left<T> left = left_rows(p.left, i + begin, k, end - begin, depth, scratch.left);
      multiply(end - begin, cols, depth, left, right, c + begin * c_stride, c_stride, p.add || k > 0);
    }
    k += step;
  } while (k < p.depth);
  if constexpr (sizeof(T) == 4) {  // summed in fp32, rounded once
    if (!in_place) store_rows(scratch.c, c_stride, rows, cols, static_cast<bf16_bits*>(p.c) + at, p.c_stride);
  }
}

template <class T>
void multiply_all_in(const Context& context, std::span<const Product> products) {
  Arena::Scope scope(context.scratch);
  double flops = 0;
  for (const Product& p : products) flops += 2.0 * double(p.rows) * double(p.cols) * double(p.depth);
  int threads = flops < kFlopsForThreads ? 1 : std::max(1, context.device.threads);

  const std::int64_t count = std::int64_t(products.size());
  Tensor first_tile = context.scratch.tensor({count + 1}, DType::i64);  // of each product
  std::int64_t* first = first_tile.as<std::int64_t>();
  Tile most{0, 0};
  first[0] = 0;
  for (std::int64_t e = 0; e < count; ++e) {
    const Product& p = products[std::size_t(e)];
    const Tile tile = tile_of(p, kLanes<T>, count > 1 ? 1 : threads);
    most = {std::max(most.rows, tile.rows), std::max(most.cols, tile.cols)};
    const std::int64_t tiles = tile.rows ? ((p.rows + tile.rows - 1) / tile.rows) * ((p.cols + tile.cols - 1) / tile.cols) : 0;
    first[e + 1] = first[e] + tiles;
  }
  threads = int(std::min<std::int64_t>(threads, first[count]));
  if (threads == 0) return;

  constexpr DType type = dtype_of<T>::value;
  const bool in_place = products[0].c_dtype == type;
  Tensor right = context.scratch.tensor({threads, kDepth * most.cols}, type);
  Tensor left = context.scratch.tensor({threads, kDepth * simd::padded<T>(kLeftRows)}, type);
  Tensor c = context.scratch.tensor({threads, in_place ? 0 : most.rows * most.cols}, type);
  std::atomic<std::int64_t> next{0};
#pragma omp parallel num_threads(threads)
  {
    const std::int64_t thread = omp_get_thread_num();
    const Scratch<T> scratch{right.as<T>() + thread * right.stride, left.as<T>() + thread * left.stride, c.as<T>() + thread * c.stride};
    for (std::int64_t t; (t = next.fetch_add(1, std::memory_order_relaxed)) < first[count];) {
      const std::int64_t e = std::upper_bound(first, first + count + 1, t) - first - 1;
      const Product& p = products[std::size_t(e)];
      const Tile tile = tile_of(p, kLanes<T>, count > 1 ? 1 : threads);
      const std::int64_t row_tiles = (p.rows + tile.rows - 1) / tile.rows;
      const std::int64_t i = (t - first[e]) % row_tiles * tile.rows, j = (t - first[e]) / row_tiles * tile.cols;
      multiply_tile(p, i, std::min(tile.rows, p.rows - i), j, std::min(tile.cols, p.cols - j), scratch);
    }
  }
}
}  // namespace

void multiply_all(const Context& context, std::span<const Product> products) {
  if (products.empty()) return;
  if (products[0].c_dtype == DType::f64) {
    multiply_all_in<double>(context, products);
  } else {
    multiply_all_in<float>(context, products);
  }
}

}  // namespace af::micro
