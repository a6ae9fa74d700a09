// Learning rate and weight decay over a stage, as Megatron-LM's OptimizerParamScheduler computes them.
// Time is counted in samples: before the first iteration of the stage 0, before iteration i (from 0) i * global_batch_size.
// So the first iteration runs at lr_warmup_init where there is a warm-up, and lr is reached at iteration lr_warmup_iters.
#pragma once
#include "launch/config.h"

namespace af {

// With s the samples so far, w those of the warm-up, d = lr_decay_iters * global_batch_size (default: the whole stage):
//   s <= w   lr_warmup_init + (lr - lr_warmup_init) * s / w
//   s > d    min_lr                                          (not for constant)
//   else, r = (s - w) / (d - w):   min_lr + (lr - min_lr) * c(r)
//   constant: lr;  linear: c = 1 - r;  cosine: c = (cos(pi r) + 1) / 2
//   inverse-square-root: max(min_lr, lr * sqrt(max(w, 1) / max(s, 1)))
//   WSD: c = 1 up to d - a, a = lr_wsd_decay_iters * global_batch_size, then with r' = (s - (d - a)) / a
//        linear 1 - r', cosine (cos(pi r') + 1) / 2, exponential 2 * 0.5^r' - 1, minus_sqrt 1 - sqrt(r')
// lr_warmup_fraction is of d, not rounded.
double learning_rate(const LrConfig& lr, const StageSteps& steps, std::int64_t iteration);

// weight_decay, going to end_weight_decay over the whole stage: constant, linear, or cosine as 1 - (cos(pi r) + 1) / 2.
double weight_decay(const OptimizerConfig& optimizer, const StageSteps& steps, std::int64_t iteration);

// As the YAML names it: "cosine", "WSD".
const char* name_of(LrDecayStyle style);

// Samples of the warm-up, for the plan and the checks.
double warmup_samples(const LrConfig& lr, const StageSteps& steps);

}  // namespace af
