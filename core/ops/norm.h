// RMSNorm (arXiv 1910.07467): y = x / rms(x) * w, rms(x) = sqrt(mean(x^2) + eps), statistics in the accumulator type.
// Gradients of weights are added in chunks of rows that shape alone decides: the same bits for any number of threads.
#pragma once
#include "core/memory.h"
#include "core/ops/matmul.h"

namespace af {

// x, y [T, H]; w [H]; rstd [T] (accumulator type): 1 / rms.
void rms_norm(const Context& context, const Tensor& x, const Tensor& w, double eps, const Tensor& y, const Tensor& rstd);
// dx [T, H] is overwritten or added to (the residual branch); dw [H] (accumulator type) is added to.
void rms_norm_backward(const Context& context, const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd, const Tensor& dx,
                       Accumulate accumulate_dx, const Tensor& dw);

// Qwen3's query/key path in one pass: RMSNorm over head_dim per head, then RoPE (half-split rotation) by the token's position.
// x [T, heads, D] (strided rows: a slice of qkv), w [D], cos and sin [P, D/2] (accumulator type), positions [T] int32 < P,
// y [T, heads, D] (strided rows allowed), rstd [T, heads].
struct HeadNormRope {
  Tensor w, cos, sin, positions;
  double eps;
};
void head_norm_rope(const Context& context, const Tensor& x, const HeadNormRope& p, const Tensor& y, const Tensor& rstd);
// dx is overwritten; dw [D] (accumulator type) is added to.
void head_norm_rope_backward(const Context& context, const Tensor& dy, const Tensor& x, const HeadNormRope& p, const Tensor& rstd, const Tensor& dx,
                             const Tensor& dw);

}  // namespace af
