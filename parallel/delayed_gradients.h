// Weight gradients that a schedule computes later than the input gradients: what they need stays in the micro-batch's memory.
#pragma once
#include <span>
#include <vector>

#include "parallel/linear.h"

namespace af {

class DelayedGradients {
 public:
  // dW += dy^T x; with `gather`, x [T_local, K] enters its block again first.
  void add(const Linear& linear, const Tensor& dy, const Tensor& x);
  void add(const ColumnParallelLinear& linear, const Tensor& dy, const Tensor& x);
  // dW[e] += dy[rows of e]^T x[rows of e]: experts (core/ops/matmul.h).
  void add(Parameter* experts, const Tensor& dy, const Tensor& x, std::span<const std::int64_t> offsets);
  // Computes all of them, in the order of the calls.
  void run(const Context& context);
  bool empty() const { return products_.empty(); }

 private:
  struct Product {
    const Linear* linear = nullptr;
    const TensorParallel* gather = nullptr;
    Parameter* experts = nullptr;
    Tensor dy, x;
    std::span<const std::int64_t> offsets;
  };
  std::vector<Product> products_;
};

}  // namespace af
