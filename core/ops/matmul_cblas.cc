#include "core/ops/matmul_cblas.h"

#include <cblas.h>

#include <algorithm>

#include "core/simd.h"

namespace af {
namespace {
using simd::bf16_bits;

Tensor widened(const Context& context, const Tensor& x) {
  if (x.dtype != DType::bf16) return x;
  Tensor copy = context.scratch.tensor({x.rows(), x.cols()}, DType::f32);
  for (std::int64_t i = 0; i < x.rows(); ++i) {
    const bf16_bits* from = static_cast<const bf16_bits*>(x.data) + i * x.stride;
    std::transform(from, from + x.cols(), copy.as<float>() + i * copy.stride, [](bf16_bits v) { return simd::widen(v); });
  }
  return copy;
}
}  // namespace

void matmul_cblas(const Context& context, const Tensor& a, Trans trans_a, const Tensor& b, Trans trans_b, const Tensor& c, Accumulate accumulate) {
  Arena::Scope scope(context.scratch);
  const Tensor fa = widened(context, a), fb = widened(context, b), fc = widened(context, c);
  const auto op = [](Trans trans) { return trans == Trans::yes ? CblasTrans : CblasNoTrans; };
  const int m = int(c.rows()), n = int(c.cols()), k = int(trans_a == Trans::yes ? a.rows() : a.cols());
  const int lda = std::max(1, int(fa.stride)), ldb = std::max(1, int(fb.stride)), ldc = std::max(1, int(fc.stride));
  const double beta = accumulate == Accumulate::yes ? 1 : 0;
  if (c.dtype == DType::f64) {
    cblas_dgemm(CblasRowMajor, op(trans_a), op(trans_b), m, n, k, 1, fa.as<double>(), lda, fb.as<double>(), ldb, beta, fc.as<double>(), ldc);
  } else {
    cblas_sgemm(CblasRowMajor, op(trans_a), op(trans_b), m, n, k, 1, fa.as<float>(), lda, fb.as<float>(), ldb, float(beta), fc.as<float>(), ldc);
  }
  if (c.dtype != DType::bf16) return;
  for (std::int64_t i = 0; i < m; ++i) {
    const float* from = fc.as<float>() + i * fc.stride;
    std::transform(from, from + n, static_cast<bf16_bits*>(c.data) + i * c.stride, [](float v) { return simd::narrow<bf16_bits>(v); });
  }
}

}  // namespace af
