// y = x W^T. The backward is two calls, so that a schedule may delay the second (zero bubble).
#pragma once
#include "core/ops/matmul.h"
#include "parallel/parameter.h"

namespace af {

class Linear {
 public:
  explicit Linear(Parameter* weight) : weight_(weight) {}  // weight [N, K]
  Parameter& weight() const { return *weight_; }

  // y [T, N] = x W^T, x [T, K]; Accumulate::yes adds to y (the residual branch).
  void forward(const Context& context, const Tensor& x, const Tensor& y, Accumulate accumulate = Accumulate::no) const;
  // dx [T, K] = dy W, dy [T, N].
  void backward_input(const Context& context, const Tensor& dy, const Tensor& dx, Accumulate accumulate = Accumulate::no) const;
  // dW += dy^T x.
  void backward_weight(const Context& context, const Tensor& dy, const Tensor& x) const;

 private:
  Parameter* weight_;
};

}  // namespace af
