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

// A packed block of the right factor (kRight numbers, kDepth deep or less: 786 KB of fp32) stays in the second cache while rows
// of the left factor pass through the first. A tile of C is many such blocks wide, so that its left factor, where it has to
// be packed or converted too (kLeft numbers at most), is so for all of them. kStaged: numbers of a tile that is rounded at its end.
constexpr std::int64_t kDepth = 1024, kRight = kDepth * 192, kLeft = kDepth * 1024, kTileCols = 1536, kTileRows = 2048, kStaged = 256 * 1024,
                       kFewRows = 128, kStrip = 192;
constexpr double kFlopsForThreads = 5e5;  // below: a few microseconds, as long as it takes to wake a thread

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The pieces of K: as few as kDepth allows, as even as they go.
std::int64_t depth_step(std::int64_t depth) {
  const std::int64_t pieces = std::max<std::int64_t>(1, ceil_div(depth, kDepth));
  return std::max<std::int64_t>(1, ceil_div(depth, pieces));
}

// C = X W^T of few rows: transposing X is cheaper than W, so it is C^T = W X^T that is computed, in strips that are transposed
// when they are ready. The sums are the same products in the same order. Not where W has to be converted, as
// bf16 is: packing does that on its way.
Product oriented(const Product& p, int lanes) {
  if (p.right.dtype != accumulator_of(p.c_dtype)) return p;
  if (!p.left.depth_contiguous || !p.right.depth_contiguous || p.add || p.rows > kFewRows || ceil_div(p.rows, lanes) * lanes * p.depth > kRight ||
      p.cols < p.rows)
    return p;
  Product t = p;
  std::swap(t.left, t.right);
  std::swap(t.rows, t.cols);
  t.transposed = true;
  return t;
}

struct Tile {
  std::int64_t rows, cols;
};
bool in_place(const Factor& f, DType type) { return f.depth_contiguous && f.dtype == type; }
std::int64_t block_cols(std::int64_t depth, int lanes) {
  const std::int64_t panel = simd::kVectors * lanes;
  return kRight / std::max<std::int64_t>(16, depth) / panel * panel;
}
// `tiles`: how many it takes to keep all threads busy.
Tile tile_of(const Product& p, int lanes, std::int64_t tiles) {
  if (p.rows == 0 || p.cols == 0) return {0, 0};
  const DType type = accumulator_of(p.c_dtype);
  const std::int64_t depth = depth_step(p.depth), block = block_cols(depth, lanes), fewest_cols = 2 * simd::kVectors * lanes,
                     fewest_rows = 16 * kRows;
  const std::int64_t most_cols = std::max(block, kTileCols / block * block);
  const std::int64_t most_rows = std::min(in_place(p.left, type) ? kTileRows : kLeft / std::max<std::int64_t>(512, depth),
                                          p.c_dtype == type ? kTileRows : kStaged / std::min(most_cols, p.cols));
  if (p.transposed) return {std::max(kStrip, ceil_div(p.rows, tiles)), p.cols};
  const auto pieces = [](std::int64_t wanted, std::int64_t size, std::int64_t most, std::int64_t fewest) {
    return std::clamp(wanted, ceil_div(size, most), std::max(ceil_div(size, most), size / fewest));
  };
  const std::int64_t row_tiles = ceil_div(p.rows, most_rows);
  const std::int64_t col_tiles = pieces(ceil_div(tiles, row_tiles), p.cols, most_cols, fewest_cols);
  const std::int64_t cols = ceil_div(ceil_div(p.cols, col_tiles), lanes) * lanes;
  return {ceil_div(p.rows, pieces(ceil_div(tiles, col_tiles), p.rows, most_rows, fewest_rows)), cols};
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

// Between groups: not a power of two, or all groups would meet in one set of the cache.
std::int64_t group_stride(std::int64_t depth) { return depth * kRows + 16; }

// Rows x.. of the left factor: where they lie; or converted; or, where neighbours in memory are rows, in groups [depth, kRows].
template <class T>
struct LeftRows {
  Left<T> first;
  std::int64_t group_stride;  // 0: not in groups
};
template <class T>
LeftRows<T> pack_left(const Factor& f, std::int64_t x, std::int64_t k, std::int64_t rows, std::int64_t depth, T* copy) {
  if (in_place(f, dtype_of<T>::value)) return {{static_cast<const T*>(f.data) + x * f.stride + k, f.stride, 1}, 0};
  if (f.depth_contiguous) {
    const std::int64_t stride = simd::padded<T>(depth);
    with_type<T>(f.dtype, f.data, [&](auto* data) { load_rows(data + x * f.stride + k, f.stride, rows, depth, copy, stride); });
    return {{copy, stride, 1}, 0};
  }
  const std::int64_t stride = group_stride(depth);
  with_type<T>(f.dtype, f.data, [&](auto* data) {
    const auto* from = data + k * f.stride + x;
    const Groups groups(rows);
    for (std::int64_t d = 0; d < depth; ++d, from += f.stride)
      for (std::int64_t g = 0; g < groups.count; ++g) {
        const std::int64_t begin = groups.begin(g);
        T* to = copy + g * stride + d * kRows;
        if (begin + kRows <= rows) {
          T piece[kRows];
          for (int r = 0; r < kRows; ++r) piece[r] = simd::widen(from[begin + r]);
          std::memcpy(to, piece, sizeof piece);
        } else {
          for (std::int64_t r = begin; r < rows; ++r) to[r - begin] = simd::widen(from[r]);
        }
      }
  });
  return {{copy, 1, kRows}, stride};
}

template <class T>
void multiply_tile(const Product& p, std::int64_t i, std::int64_t rows, std::int64_t j, std::int64_t cols, const Scratch<T>& scratch) {
  const bool final = p.c_dtype == dtype_of<T>::value;
  const std::int64_t corner = i * p.c_stride + j, c_stride = final ? p.c_stride : simd::padded<T>(cols);
  T* c = final ? static_cast<T*>(p.c) + corner : scratch.c;
  if constexpr (sizeof(T) == 4) {
    if (!final && p.add) load_rows(static_cast<const bf16_bits*>(p.c) + corner, p.c_stride, rows, cols, scratch.c, c_stride);
  }

  const std::int64_t step = depth_step(p.depth), block = block_cols(step, kLanes<T>);
  std::int64_t k = 0;
  do {  // once even where K is 0
    const std::int64_t depth = std::min(step, p.depth - k);
    const bool add = p.add || k > 0;
    const LeftRows<T> left = pack_left(p.left, i, k, rows, depth, scratch.left);
    const Groups groups(left.group_stride ? rows : 1);
    for (std::int64_t at = 0; at < cols; at += block) {
      const std::int64_t width = std::min(block, cols - at);
      const Right<T> right = pack_right(p.right, j + at, k, width, depth, scratch.right);
      if (left.group_stride == 0) {
        multiply(rows, width, depth, left.first, right, c + at, c_stride, add);
        continue;
      }
      for (std::int64_t g = 0; g < groups.count; ++g)
        multiply(groups.begin(g + 1) - groups.begin(g), width, depth, left.first.from_row(g * left.group_stride), right,
                 c + groups.begin(g) * c_stride + at, c_stride, add);
    }
    k += step;
  } while (k < p.depth);
  if constexpr (sizeof(T) == 4) {  // summed in fp32, rounded once
    if (!final) store_rows(scratch.c, c_stride, rows, cols, static_cast<bf16_bits*>(p.c) + corner, p.c_stride);
  }
}

// Rows i.. of the transposed C, all columns.
template <class T>
void multiply_strips(const Product& p, std::int64_t i, std::int64_t rows, const Scratch<T>& scratch) {
  const std::int64_t step = depth_step(p.depth), width = simd::padded<T>(p.cols);
  for (std::int64_t k = 0; k < p.depth; k += step) pack_right(p.right, 0, k, p.cols, std::min(step, p.depth - k), scratch.right + k * width);
  for (std::int64_t end = i + rows; i < end; i += kStrip) {
    const std::int64_t count = std::min(kStrip, end - i);
    std::int64_t k = 0;
    do {  // once even where K is 0
      const std::int64_t depth = std::min(step, p.depth - k);
      const LeftRows<T> left = pack_left(p.left, i, k, count, depth, scratch.left);
      multiply(count, width, depth, left.first, Right<T>{scratch.right + k * width, depth, p.cols}, scratch.c, width, k > 0);
      k += step;
    } while (k < p.depth);
    with_type<T>(p.c_dtype, p.c, [&](auto* data) {
      using S = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
      store_columns(scratch.c, width, count, p.cols, const_cast<S*>(data) + i, p.c_stride);
    });
  }
}

template <class T>
void multiply_all_in(const Context& context, std::span<const Product> products) {
  constexpr DType type = dtype_of<T>::value;
  Arena::Scope scope(context.scratch);
  double flops = 0;
  for (const Product& p : products) flops += 2.0 * double(p.rows) * double(p.cols) * double(p.depth);
  int threads = flops < kFlopsForThreads ? 1 : std::max(1, context.device.threads);

  const std::int64_t count = std::int64_t(products.size());
  const std::int64_t tiles = threads == 1 ? 1 : ceil_div(4 * threads, count);
  Tensor first_tile = context.scratch.tensor({count + 1}, DType::i64);  // of each product
  std::int64_t* first = first_tile.as<std::int64_t>();
  std::int64_t most_right = 0, most_left = 0, most_c = 0;  // numbers of a tile
  first[0] = 0;
  for (std::int64_t e = 0; e < count; ++e) {
    const Product p = oriented(products[std::size_t(e)], kLanes<T>);
    const Tile tile = tile_of(p, kLanes<T>, tiles);
    const std::int64_t depth = depth_step(p.depth);
    const std::int64_t width = simd::padded<T>(tile.cols);
    most_right = std::max(most_right, p.transposed ? width * p.depth : std::min(width, block_cols(depth, kLanes<T>)) * depth);
    if (!in_place(p.left, type))
      most_left = std::max(most_left, Groups(p.transposed ? kStrip : tile.rows).count * group_stride(simd::padded<T>(depth)));
    if (p.c_dtype != type || p.transposed) most_c = std::max(most_c, (p.transposed ? kStrip : tile.rows) * width);
    first[e + 1] = first[e] + (tile.rows ? ceil_div(p.rows, tile.rows) * ceil_div(p.cols, tile.cols) : 0);
  }
  threads = int(std::min<std::int64_t>(threads, first[count]));
  if (threads == 0) return;

  Tensor right = context.scratch.tensor({threads, most_right}, type);
  Tensor left = context.scratch.tensor({threads, most_left}, type);
  Tensor c = context.scratch.tensor({threads, most_c}, type);
  std::atomic<std::int64_t> next{0};
#pragma omp parallel num_threads(threads)
  {
    const std::int64_t thread = omp_get_thread_num();
    const Scratch<T> scratch{right.as<T>() + thread * right.stride, left.as<T>() + thread * left.stride, c.as<T>() + thread * c.stride};
    for (std::int64_t t; (t = next.fetch_add(1, std::memory_order_relaxed)) < first[count];) {
      const std::int64_t e = std::upper_bound(first, first + count + 1, t) - first - 1;
      const Product p = oriented(products[std::size_t(e)], kLanes<T>);
      const Tile tile = tile_of(p, kLanes<T>, tiles);
      const std::int64_t row_tiles = ceil_div(p.rows, tile.rows);
      const std::int64_t i = (t - first[e]) % row_tiles * tile.rows, j = (t - first[e]) / row_tiles * tile.cols;
      if (p.transposed) {
        multiply_strips(p, i, std::min(tile.rows, p.rows - i), scratch);
        continue;
      }
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
