#include "parallel/optimizer.h"

#include <cmath>

#include "core/ops/adamw.h"
#include "core/ops/elementwise.h"

namespace af {

Optimizer::Optimizer(const Device& device, ParameterSet& set) : set_(set) {
  DType accumulator = accumulator_of(set.dtype());
  Shape shape = set.values().shape;
  std::size_t bytes = std::size_t(shape.numel()) * size_of(accumulator);
  master_ = set.values();
  if (set.dtype() != accumulator) {
    master_buffer_ = Buffer(device, bytes);
    master_ = Tensor(master_buffer_.data(), accumulator, shape);
  }
  exp_avg_buffer_ = Buffer(device, bytes);
  exp_avg_sq_buffer_ = Buffer(device, bytes);
  exp_avg_ = Tensor(exp_avg_buffer_.data(), accumulator, shape);
  exp_avg_sq_ = Tensor(exp_avg_sq_buffer_.data(), accumulator, shape);
  Arena scratch(device, "optimizer");
  Context context{device, scratch};
  fill(context, exp_avg_, 0);
  fill(context, exp_avg_sq_, 0);
  reset_master(context);
}

void Optimizer::reset_master(const Context& context) {
  if (master_.data != set_.values().data) convert(context, set_.values(), master_);
}

OptimizerResult Optimizer::step(const Context& context, const OptimizerSettings& settings, double lr) {
  OptimizerResult result;
  double squares = 0;
  for (const Parameter& p : set_.parameters()) squares += sum_of_squares(context, p.gradient);  // each element counted once
  result.grad_norm = std::sqrt(squares);
  result.skipped = !std::isfinite(squares);
  if (!result.skipped) {
    ++steps_;
    // Megatron and torch: clip coefficient = max_norm / (norm + 1e-6), at most 1.
    double clip = settings.clip_grad > 0 ? std::min(1.0, settings.clip_grad / (result.grad_norm + 1e-6)) : 1.0;
    for (const Parameter& p : set_.parameters()) {
      double decay = p.weight_decay == WeightDecay::yes ? settings.weight_decay : 0;
      AdamWStep step{lr, settings.beta1, settings.beta2, settings.eps, decay, steps_, clip};
      std::int64_t begin = set_.begin_of(p), end = begin + p.numel();
      adamw(context, step, set_.gradients().slice_rows(begin, end), master_.slice_rows(begin, end), exp_avg_.slice_rows(begin, end),
            exp_avg_sq_.slice_rows(begin, end), set_.values().slice_rows(begin, end));
    }
  }
  fill(context, set_.gradients(), 0);
  return result;
}

double Optimizer::params_norm(const Context& context) const { return std::sqrt(sum_of_squares(context, master_)); }

}  // namespace af
