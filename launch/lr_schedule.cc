#include "launch/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace af {
namespace {

double cosine(double ratio) { return 0.5 * (std::cos(std::numbers::pi * ratio) + 1); }

double decay_samples(const LrConfig& lr, const StageSteps& steps) {
  return double(lr.lr_decay_iters.value_or(steps.train_iters)) * double(steps.global_batch_size);
}

// The share of lr - min_lr that is left after `ratio` of WSD's last phase.
double wsd(WsdDecayStyle style, double ratio) {
  switch (style) {
    case WsdDecayStyle::linear:
      return 1 - ratio;
    case WsdDecayStyle::cosine:
      return cosine(ratio);
    case WsdDecayStyle::exponential:
      return 2 * std::pow(0.5, ratio) - 1;
    case WsdDecayStyle::minus_sqrt:
      return 1 - std::sqrt(ratio);
  }
  return 0;
}

}  // namespace

const char* name_of(LrDecayStyle style) {
  switch (style) {
    case LrDecayStyle::constant:
      return "constant";
    case LrDecayStyle::linear:
      return "linear";
    case LrDecayStyle::cosine:
      return "cosine";
    case LrDecayStyle::inverse_square_root:
      return "inverse-square-root";
    case LrDecayStyle::wsd:
      return "WSD";
  }
  return "?";
}

double warmup_samples(const LrConfig& lr, const StageSteps& steps) {
  if (lr.lr_warmup_fraction) return *lr.lr_warmup_fraction * decay_samples(lr, steps);
  if (lr.lr_warmup_iters) return double(*lr.lr_warmup_iters) * double(steps.global_batch_size);
  return double(lr.lr_warmup_samples.value_or(0));
}

double learning_rate(const LrConfig& lr, const StageSteps& steps, std::int64_t iteration) {
  const double now = double(iteration) * double(steps.global_batch_size), warmup = warmup_samples(lr, steps), end = decay_samples(lr, steps);
  if (warmup > 0 && now <= warmup) return lr.lr_warmup_init + (lr.lr - lr.lr_warmup_init) * now / warmup;
  if (lr.lr_decay_style == LrDecayStyle::constant) return lr.lr;
  if (now > end) return lr.min_lr;
  if (lr.lr_decay_style == LrDecayStyle::inverse_square_root) {
    return std::max(lr.min_lr, lr.lr * std::sqrt(std::max(warmup, 1.0)) / std::sqrt(std::max(now, 1.0)));
  }
  const double ratio = (now - warmup) / (end - warmup);
  double left = 1;
  if (lr.lr_decay_style == LrDecayStyle::linear) left = 1 - ratio;
  if (lr.lr_decay_style == LrDecayStyle::cosine) left = cosine(ratio);
  if (lr.lr_decay_style == LrDecayStyle::wsd) {
    const double last_phase = double(lr.lr_wsd_decay_iters.value_or(0)) * double(steps.global_batch_size), begin = end - last_phase;
    if (now > begin) left = wsd(lr.lr_wsd_decay_style, (now - begin) / last_phase);
  }
  return lr.min_lr + (lr.lr - lr.min_lr) * left;
}

double weight_decay(const OptimizerConfig& optimizer, const StageSteps& steps, std::int64_t iteration) {
  if (optimizer.weight_decay_incr_style == OptimizerConfig::WeightDecayStyle::constant) return optimizer.settings.weight_decay;
  const double ratio = std::min(1.0, double(iteration) / double(steps.train_iters));
  const double done = optimizer.weight_decay_incr_style == OptimizerConfig::WeightDecayStyle::linear ? ratio : 1 - cosine(ratio);
  return optimizer.settings.weight_decay +
         (optimizer.end_weight_decay.value_or(optimizer.settings.weight_decay) - optimizer.settings.weight_decay) * done;
}

}  // namespace af
