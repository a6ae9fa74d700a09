// What forward and backward of the CPU's attention share: the ranges they walk, and how scratch memory is handed to threads.
#pragma once
#include <algorithm>
#include <span>

#include "core/memory.h"
#include "core/ops/attention.h"
#include "core/simd.h"

namespace af::attention {

// Keys are taken in blocks counted from the first key of the document: a row's sums are cut the same way wherever it lies.
template <class T>
inline constexpr std::int64_t kKeys = 12 * simd::kLanes<T>;

// Query row r of a segment (from its q_begin) sees the keys k_begin .. k_begin + visible(r).
struct Segment : AttentionSegment {
  std::int64_t queries() const { return q_end - q_begin; }
  std::int64_t keys() const { return k_end - k_begin; }
  std::int64_t visible(std::int64_t row) const { return keys() - queries() + row + 1; }
  std::int64_t first_row_that_sees(std::int64_t key) const { return std::max<std::int64_t>(0, key - (keys() - queries())); }
};

template <class U>
std::span<U> take(Arena& arena, std::int64_t count) {  // until the scope ends, uninitialised
  return {static_cast<U*>(arena.tensor({(count * std::int64_t(sizeof(U)) + 7) / 8}, DType::i64).data), std::size_t(count)};
}

void check_shapes(const Tensor& q, const Tensor& k, const Tensor& v, double scale);

// The segments in the order of their queries, without rows that see no key; checked against the lengths of q and k.
std::span<Segment> sorted_segments(const Context& context, std::span<const AttentionSegment> segments, std::int64_t queries, std::int64_t keys);

// 1 where waking the others costs more than it saves.
int threads_for(const Context& context, std::span<const Segment> segments, std::int64_t heads, std::int64_t head_dim);

// f(T{}, S{}): what is computed in, and what q, k, v are stored as.
template <class F>
void with_types(DType dtype, F f) {
  switch (dtype) {
    case DType::f32:
      return f(float{}, float{});
    case DType::bf16:
      return f(float{}, simd::bf16_bits{});
    case DType::f64:
      return f(double{}, double{});
    default:
      AF_CHECK(false, "attention in {}", name_of(dtype));
  }
}

}  // namespace af::attention
