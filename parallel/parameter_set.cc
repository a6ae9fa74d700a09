#include "parallel/parameter_set.h"

#include <utility>

#include "core/ops/elementwise.h"
#include "core/random.h"

namespace af {
namespace {
constexpr std::int64_t kLine = 64 / 2;  // elements on a 64-byte line of the smallest type
}

Parameter* ParameterSet::add(Parameter parameter) {
  AF_CHECK(values_.empty(), "{} was added after the buffers were laid out", parameter.name);
  parameters_.push_back(std::move(parameter));
  return &parameters_.back();
}

void ParameterSet::allocate() {
  std::int64_t padded = 0;
  for (const Parameter& p : parameters_) padded += (p.numel() + kLine - 1) / kLine * kLine;
  DType accumulator = accumulator_of(dtype_);
  value_buffer_ = Buffer(device_, std::size_t(padded) * size_of(dtype_));
  gradient_buffer_ = Buffer(device_, std::size_t(padded) * size_of(accumulator));
  values_ = Tensor(value_buffer_.data(), dtype_, {padded});
  gradients_ = Tensor(gradient_buffer_.data(), accumulator, {padded});
  Arena scratch(device_, "parameter set");
  fill(Context{device_, scratch}, values_, 0);
  fill(Context{device_, scratch}, gradients_, 0);
  std::int64_t begin = 0;
  for (Parameter& p : parameters_) {
    p.value = values_.slice_rows(begin, begin + p.numel()).view(p.shape);
    p.gradient = gradients_.slice_rows(begin, begin + p.numel()).view(p.shape);
    begin += (p.numel() + kLine - 1) / kLine * kLine;
  }
}

std::int64_t ParameterSet::begin_of(const Parameter& parameter) const {
  return (static_cast<const char*>(parameter.value.data) - static_cast<const char*>(values_.data)) / std::int64_t(size_of(dtype_));
}

std::int64_t ParameterSet::numel() const {
  std::int64_t n = 0;
  for (const Parameter& p : parameters_) n += p.numel();
  return n;
}

Tensor slab_view(const Slab& slab, const Tensor& flat) {
  return flat.view({flat.numel()}).slice_rows(slab.offset, slab.offset + slab.rows * slab.cols).view({slab.rows, slab.cols});
}

void initialize(const Context& context, ParameterSet& set, std::uint64_t seed, double std) {
  for (Parameter& p : set.parameters()) {
    if (p.init == InitMethod::ones) {
      fill(context, p.value, 1);
      continue;
    }
    for (const Slab& slab : p.slabs) {
      std::int64_t global_cols = slab.global_shape.rank > 1 ? slab.global_shape[1] : 1;
      fill_normal(context, {seed, hash_name(slab.name), slab.row_begin, slab.col_begin, global_cols}, std, slab_view(slab, p.value));
    }
  }
}

}  // namespace af
