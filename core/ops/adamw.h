// AdamW with decoupled weight decay (arXiv 1711.05101), as torch.optim.AdamW: p -= lr * wd * p, then
// p -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).
#pragma once
#include "core/memory.h"

namespace af {

struct AdamWStep {
  double lr, beta1, beta2, eps, weight_decay;
  std::int64_t step;      // t, from 1
  double gradient_scale;  // the gradient is multiplied by it first: clipping
};

// Flat tensors of n elements. master, m, v, gradient in the accumulator type; param gets the new value rounded to its own
// type (it may be master itself).
void adamw(const Context& context, const AdamWStep& step, const Tensor& gradient, const Tensor& master, const Tensor& m, const Tensor& v, const Tensor& param);

}  // namespace af
