// y = x W^T, and its two tensor-parallel forms (Megatron-LM's names). The backward is two parts, input gradient and weight
// gradient, so that a schedule may delay the second (zero bubble, arXiv 2401.10241).
#pragma once
#include "core/ops/matmul.h"
#include "parallel/parameter.h"
#include "parallel/tensor_parallel.h"

namespace af {

class DelayedGradients;

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

// Each rank has rows of W: x [T, K] is whole, y [T, N_local].
class ColumnParallelLinear : public Linear {
 public:
  ColumnParallelLinear(Parameter* weight, const TensorParallel& tp) : Linear(weight), tp_(tp) {}
  // dx [T_local, K] from dy [T, N_local]; x [T_local, K] as it was before it entered: it is gathered once more, while the input
  // gradient is computed, and the sum of the input gradients moves while the weight gradient is. With `delayed` the weight gradient
  // is left to it: dy and x must live until then.
  void backward(const Context& context, const Tensor& dy, const Tensor& x, const Tensor& dx, DelayedGradients* delayed) const;
  const TensorParallel& tensor_parallel() const { return tp_; }

 private:
  TensorParallel tp_;
};

// Each rank has columns of W: x [T, K_local], y the sum over ranks.
class RowParallelLinear : public Linear {
 public:
  RowParallelLinear(Parameter* weight, const TensorParallel& tp) : Linear(weight), tp_(tp) {}
  // y [T_local, N] += sum of x W^T.
  void forward_add(const Context& context, const Tensor& x, const Tensor& y) const;
  // dx [T, K_local] from dy [T_local, N]. With `delayed` the weight gradient is left to it, what it needs of dy in `lasting` memory: x
  // must live until then.
  void backward(const Context& context, Arena& lasting, const Tensor& dy, const Tensor& x, const Tensor& dx, DelayedGradients* delayed) const;

 private:
  TensorParallel tp_;
};

}  // namespace af
