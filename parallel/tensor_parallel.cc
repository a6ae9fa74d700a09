#include "parallel/tensor_parallel.h"

namespace af {
namespace {

Shape gathered(const Shape& shape, int ranks) {
  Shape all = shape;
  all.dims[0] *= ranks;
  return all;
}

}  // namespace

TensorParallel::Entering TensorParallel::start_enter(Arena& memory, const Tensor& x) const {
  if (!sequence_) return {x, {}};
  Tensor all = memory.tensor(gathered(x.shape, tp_.size()), x.dtype);
  return {all, tp_.all_gather(x, all)};
}

Tensor TensorParallel::enter(Arena& memory, const Tensor& x) const {
  Entering entering = start_enter(memory, x);
  entering.pending.wait();
  return entering.all;
}

Tensor TensorParallel::part_of_sum(Arena& memory, const Tensor& out) const {
  return sequence_ ? memory.tensor(gathered(out.shape, tp_.size()), out.dtype) : out;
}

Pending TensorParallel::leave(const Tensor& part, const Tensor& out) const {
  if (sequence_) return tp_.reduce_scatter(part, out);
  AF_CHECK(part.data == out.data, "leave: without sequence parallelism the sum is taken in place");
  return tp_.all_reduce(out);
}

}  // namespace af
