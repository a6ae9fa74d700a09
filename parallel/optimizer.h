// AdamW over the flat buffers of a ParameterSet, with clipping by the global gradient norm.
#pragma once
#include "core/memory.h"
#include "parallel/parameter_set.h"

namespace af {

struct OptimizerSettings {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
  double clip_grad = 1.0;  // global norm; 0: no clipping
};

struct OptimizerResult {
  double grad_norm = 0;    // before clipping
  bool skipped = false;    // a gradient was not finite: nothing was changed
};

class Optimizer {
 public:
  Optimizer(const Device& device, ParameterSet& set);
  // Takes the values as they are now for the master weights: after initialisation or import.
  void reset_master(const Context& context);
  // One step with the set's gradients, which are zeroed afterwards.
  OptimizerResult step(const Context& context, const OptimizerSettings& settings, double lr);
  double params_norm(const Context& context) const;

  // State, flat with the set's offsets, in the accumulator type; for checkpoints.
  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }
  const Tensor& master() const { return master_; }  // the set's values themselves where these are of that type
  const Tensor& exp_avg() const { return exp_avg_; }
  const Tensor& exp_avg_sq() const { return exp_avg_sq_; }

 private:
  ParameterSet& set_;
  Buffer master_buffer_, exp_avg_buffer_, exp_avg_sq_buffer_;
  Tensor master_, exp_avg_, exp_avg_sq_;
  std::int64_t steps_ = 0;
};

}  // namespace af
