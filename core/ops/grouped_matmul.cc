#include "core/ops/matmul.h"
#include "core/ops/matmul_tiles.h"

namespace af {
namespace {
// Products one after the other in scratch memory: an expert each.
std::span<micro::Product> products_of(const Context& context, std::int64_t count) {
  static_assert(sizeof(micro::Product) % 8 == 0);
  Tensor memory = context.scratch.tensor({count, std::int64_t(sizeof(micro::Product) / 8)}, DType::i64);
  return {static_cast<micro::Product*>(memory.data), std::size_t(count)};
}

void check_offsets(std::span<const std::int64_t> offsets, std::int64_t experts, std::int64_t rows) {
  AF_CHECK(std::int64_t(offsets.size()) == experts + 1, "grouped matmul: {} offsets for {} experts", offsets.size(), experts);
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e)
    AF_CHECK(offsets[e] <= offsets[e + 1], "grouped matmul: expert {} owns rows {}..{}", e, offsets[e], offsets[e + 1]);
  AF_CHECK(offsets.front() >= 0 && offsets.back() <= rows, "grouped matmul: rows {}..{} of {}", offsets.front(), offsets.back(), rows);
}

const void* at(const Tensor& x, std::int64_t element) { return static_cast<const char*>(x.data) + element * std::int64_t(size_of(x.dtype)); }

void check_types(const Tensor& a, const Tensor& b, const Tensor& c) {
  AF_CHECK(is_float(a.dtype) && is_float(b.dtype) && is_float(c.dtype) && (a.dtype == DType::f64) == (c.dtype == DType::f64) &&
               (b.dtype == DType::f64) == (c.dtype == DType::f64),
           "grouped matmul: {} times {} into {}", name_of(a.dtype), name_of(b.dtype), name_of(c.dtype));
}
}  // namespace

void grouped_matmul(const Context& context, const Tensor& a, const Tensor& b, Trans trans_b, std::span<const std::int64_t> offsets, const Tensor& c) {
  AF_CHECK(a.shape.rank == 2 && b.shape.rank == 3 && c.shape.rank == 2, "grouped matmul: {} by {} into {}", a.shape.str(), b.shape.str(),
           c.shape.str());
  const bool tb = trans_b == Trans::yes;
  const std::int64_t experts = b.shape[0], depth = b.shape[tb ? 2 : 1], cols = b.shape[tb ? 1 : 2];
  AF_CHECK(a.cols() == depth && c.cols() == cols && a.rows() == c.rows(), "grouped matmul: {} by {}{} into {}", a.shape.str(), b.shape.str(),
           tb ? "^T" : "", c.shape.str());
  check_types(a, b, c);
  check_offsets(offsets, experts, a.rows());
  Arena::Scope scope(context.scratch);
  std::span<micro::Product> products = products_of(context, experts);
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::int64_t begin = offsets[std::size_t(e)], rows = offsets[std::size_t(e) + 1] - begin;
    products[std::size_t(e)] = {{at(a, begin * a.stride), a.dtype, a.stride, true},
                                {at(b, e * b.stride), b.dtype, b.shape[2], tb},
                                rows,
                                cols,
                                depth,
                                const_cast<void*>(at(c, begin * c.stride)),
                                c.dtype,
                                c.stride,
                                false};
  }
  micro::multiply_all(context, products);
}

void grouped_matmul_weight_gradient(const Context& context, const Tensor& dy, const Tensor& x, std::span<const std::int64_t> offsets,
                                    const Tensor& dw) {
  AF_CHECK(
      dy.shape.rank == 2 && x.shape.rank == 2 && dw.shape.rank == 3 && dy.rows() == x.rows() && dw.shape[1] == dy.cols() && dw.shape[2] == x.cols(),
      "grouped weight gradient: {}^T by {} into {}", dy.shape.str(), x.shape.str(), dw.shape.str());
  check_types(dy, x, dw);
  const std::int64_t experts = dw.shape[0];
  check_offsets(offsets, experts, dy.rows());
  Arena::Scope scope(context.scratch);
  std::span<micro::Product> products = products_of(context, experts);
  std::size_t count = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::int64_t begin = offsets[std::size_t(e)], rows = offsets[std::size_t(e) + 1] - begin;
    if (rows == 0) continue;  // adds nothing
    products[count++] = {{at(dy, begin * dy.stride), dy.dtype, dy.stride, false},
                         {at(x, begin * x.stride), x.dtype, x.stride, false},
                         dw.shape[1],
                         dw.shape[2],
                         rows,
                         const_cast<void*>(at(dw, e * dw.stride)),
                         dw.dtype,
                         dw.shape[2],
                         true};
  }
  micro::multiply_all(context, products.first(count));
}

}  // namespace af
