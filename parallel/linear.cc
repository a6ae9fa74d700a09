#include "parallel/linear.h"

#include "core/ops/elementwise.h"
#include "parallel/delayed_gradients.h"

namespace af {

void Linear::forward(const Context& context, const Tensor& x, const Tensor& y, Accumulate accumulate) const {
  matmul(context, x, Trans::no, weight_->value, Trans::yes, y, accumulate);
}

void Linear::backward_input(const Context& context, const Tensor& dy, const Tensor& dx, Accumulate accumulate) const {
  matmul(context, dy, Trans::no, weight_->value, Trans::no, dx, accumulate);
}

void Linear::backward_weight(const Context& context, const Tensor& dy, const Tensor& x) const {
  matmul(context, dy, Trans::yes, x, Trans::no, weight_->gradient, Accumulate::yes);
}

void ColumnParallelLinear::backward(const Context& context, const Tensor& dy, const Tensor& x, const Tensor& dx, DelayedGradients* delayed) const {
  Arena::Scope scope(context.scratch);
  TensorParallel::Entering all;
  if (!delayed) all = tp_.start_enter(context.scratch, x);
  Tensor part = tp_.part_of_sum(context.scratch, dx);
  backward_input(context, dy, part);
  Pending sum = tp_.leave(part, dx);
  if (delayed) {
    delayed->add(*this, dy, x);
  } else {
    all.pending.wait();
    backward_weight(context, dy, all.all);
  }
  sum.wait();
}

void RowParallelLinear::forward_add(const Context& context, const Tensor& x, const Tensor& y) const {
  if (tp_.alone()) return forward(context, x, y, Accumulate::yes);
  Arena::Scope scope(context.scratch);
  Tensor sum = context.scratch.tensor(y.shape, y.dtype), part = tp_.part_of_sum(context.scratch, sum);
  forward(context, x, part);
  tp_.leave(part, sum).wait();
  add(context, y, sum, y);
}

void RowParallelLinear::backward(const Context& context, Arena& lasting, const Tensor& dy, const Tensor& x, const Tensor& dx,
                                 DelayedGradients* delayed) const {
  Tensor all = tp_.enter(lasting, dy);
  backward_input(context, all, dx);
  if (!delayed) return backward_weight(context, all, x);
  if (all.data == dy.data) {  // dy goes on changing
    all = lasting.tensor(dy.shape, dy.dtype);
    convert(context, dy, all);
  }
  delayed->add(*this, all, x);
}

}  // namespace af
