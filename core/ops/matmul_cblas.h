// Matrix multiplication by a BLAS library: the oracle of the tests, and what matmul falls back to on a CPU for which
// core/simd.h has no fast kernels. There a row's bits may depend on the number of rows.
#pragma once
#include "core/ops/matmul.h"

namespace af {

// The arguments of matmul. bf16 is widened to and rounded from fp32 copies.
void matmul_cblas(const Context& context, const Tensor& a, Trans trans_a, const Tensor& b, Trans trans_b, const Tensor& c, Accumulate accumulate);

}  // namespace af
