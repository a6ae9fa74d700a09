#include "parallel/linear.h"

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

}  // namespace af
