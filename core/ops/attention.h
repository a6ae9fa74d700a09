// Causal attention over packed documents with grouped queries, without the score matrix: O(T) memory.
// FlashAttention-2 (arXiv 2307.08691), forward and backward.
// q [Tq, Hq, D], k and v [Tk, Hkv, D], Hq a multiple of Hkv, query head h reads key head h / (Hq / Hkv); rows may be
// strided (views into a fused qkv tensor). fp32, bf16 or fp64, all of one type; softmax in the accumulator type.
#pragma once
#include <cstdint>
#include <span>

#include "core/memory.h"

namespace af {

// Query rows q_begin..q_end attend key rows k_begin..k_end, causally and aligned at the end: query row q_end - 1 sees
// every key up to k_end - 1, the row before one fewer, and so on. One packed document: both ranges are the document's.
// Query ranges of one call never overlap; key ranges may (context parallelism), their gradients are then added.
// Rows of q in no segment get o = 0, lse = -inf and dq = 0; rows of k in no segment dk = dv = 0.
struct AttentionSegment {
  std::int64_t q_begin, q_end, k_begin, k_end;
};

// o [Tq, Hq, D]; lse [Tq, Hq] in the accumulator type: log(sum(exp(scale * q k))) for the backward.
void attention_forward(const Context& context, const Tensor& q, const Tensor& k, const Tensor& v, std::span<const AttentionSegment> segments,
                       double scale, const Tensor& o, const Tensor& lse);
// dq, dk, dv (shapes of q, k, v; rows may be strided) are overwritten. The result does not depend on the threads.
void attention_backward(const Context& context, const Tensor& d_o, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& o,
                        const Tensor& lse, std::span<const AttentionSegment> segments, double scale, const Tensor& dq, const Tensor& dk, const Tensor& dv);

}  // namespace af
