// Matrix multiplication, the one operation (with attention) that has vendor twins.
// Shapes: C [M, N] = op(A) op(B), op(A) [M, K], op(B) [K, N]; any of them may have strided rows.
// Types: A and B each fp32 or bf16 (fp64 only with fp64); C fp32, bf16 or fp64. Products are summed in the accumulator
// type (dtype.h) in an order that depends on K alone, so that row i of C has the same bits whatever M is and whatever
// the number of threads is.
#pragma once
#include <cstdint>
#include <span>

#include "core/memory.h"

namespace af {

enum class Trans { no, yes };
enum class Accumulate { no, yes };  // yes: C += op(A) op(B)

void matmul(const Context& context, const Tensor& a, Trans trans_a, const Tensor& b, Trans trans_b, const Tensor& c, Accumulate accumulate);

// Grouped matmul over experts. `offsets` [E + 1] (host): expert e owns rows offsets[e] .. offsets[e + 1], possibly none.
// c[rows of e] = a[rows of e] op(b[e]); a [R, K], b [E, N, K] with Trans::yes or [E, K, N] with Trans::no, c [R, N].
// Rows beyond offsets[E] are left alone.
void grouped_matmul(const Context& context, const Tensor& a, const Tensor& b, Trans trans_b, std::span<const std::int64_t> offsets, const Tensor& c);
// dw[e] += dy[rows of e]^T x[rows of e]; dy [R, N], x [R, K], dw [E, N, K].
void grouped_matmul_weight_gradient(const Context& context, const Tensor& dy, const Tensor& x, std::span<const std::int64_t> offsets, const Tensor& dw);

}  // namespace af
