#include "core/ops/matmul.h"

#include "core/ops/matmul_cblas.h"
#include "core/ops/matmul_tiles.h"
#include "core/simd.h"

namespace af {

void matmul(const Context& context, const Tensor& a, Trans trans_a, const Tensor& b, Trans trans_b, const Tensor& c, Accumulate accumulate) {
  const bool ta = trans_a == Trans::yes, tb = trans_b == Trans::yes;
  const std::int64_t rows = ta ? a.cols() : a.rows(), depth = ta ? a.rows() : a.cols(), cols = tb ? b.rows() : b.cols();
  AF_CHECK(depth == (tb ? b.cols() : b.rows()) && c.rows() == rows && c.cols() == cols, "matmul: {}{} times {}{} into {}", a.shape.str(),
           ta ? "^T" : "", b.shape.str(), tb ? "^T" : "", c.shape.str());
  AF_CHECK(is_float(a.dtype) && is_float(b.dtype) && is_float(c.dtype) && (a.dtype == DType::f64) == (c.dtype == DType::f64) &&
               (b.dtype == DType::f64) == (c.dtype == DType::f64),
           "matmul: {} times {} into {}", name_of(a.dtype), name_of(b.dtype), name_of(c.dtype));
  if constexpr (!simd::kFast) return matmul_cblas(context, a, trans_a, b, trans_b, c, accumulate);
  const micro::Product product{{a.data, a.dtype, a.stride, !ta}, {b.data, b.dtype, b.stride, tb}, rows, cols, depth, c.data, c.dtype, c.stride,
                               accumulate == Accumulate::yes};
  micro::multiply_all(context, {&product, 1});
}

}  // namespace af
