#include "parallel/optimizer.h"

#include <cmath>

#include "core/ops/adamw.h"
#include "core/ops/elementwise.h"

namespace af {

Optimizer::Optimizer(const Device& device, ParameterSet& set, const Comm& world, Memory memory)
    : device_(device), set_(set), world_(world), shares_(set.buckets().size()) {
  AF_CHECK(!set.values().empty(), "an optimizer needs parameters that are laid out");
  if (memory == Memory::later) return;
  for (int b = 0; b < int(shares_.size()); ++b) allocate(b);
  Arena scratch(device, "optimizer");
  reset_master({device, scratch});
}

void Optimizer::allocate(int index) {
  const Bucket& bucket = set_.buckets()[std::size_t(index)];
  BucketShare& share = shares_[std::size_t(index)];
  const DType accumulator = accumulator_of(set_.dtype());
  const std::int64_t n = bucket.share_numel();
  const bool own_master = set_.dtype() != accumulator;
  const std::size_t bytes = std::size_t(n) * size_of(accumulator);  // a multiple of 64
  share.buffer = Buffer(device_, (own_master ? 3 : 2) * bytes);
  auto part = [&](std::size_t i) { return Tensor(static_cast<char*>(share.buffer.data()) + i * bytes, accumulator, {n}); };
  share.state[1] = part(0);
  share.state[2] = part(1);
  share.state[0] = own_master ? part(2) : set_.values().slice_rows(bucket.share_begin(), bucket.share_end());
  Arena scratch(device_, "optimizer");
  fill({device_, scratch}, Tensor(share.buffer.data(), accumulator, {n * (own_master ? 3 : 2)}), 0);
}

void Optimizer::release(int bucket) { shares_[std::size_t(bucket)] = {}; }

void Optimizer::reset_master(const Context& context) {
  if (set_.dtype() == accumulator_of(set_.dtype())) return;
  for (std::size_t b = 0; b < shares_.size(); ++b) {
    const Bucket& bucket = set_.buckets()[b];
    convert(context, set_.values().slice_rows(bucket.share_begin(), bucket.share_end()), shares_[b].state[0]);
  }
}

void Optimizer::values_from_master(const Context& context) {
  if (set_.dtype() == accumulator_of(set_.dtype())) return;
  for (std::size_t b = 0; b < shares_.size(); ++b) {
    const Bucket& bucket = set_.buckets()[b];
    convert(context, shares_[b].state[0], set_.values().slice_rows(bucket.share_begin(), bucket.share_end()));
  }
}

// Of a parameter's elements in `flat`, this rank's share of its bucket: those that this rank counts.
double Optimizer::sum_of_squares_counted(const Context& context, const Parameter& p, const Tensor& flat) const {
  const ParameterSet::Share share = set_.share_of(p);
  double squares = 0;
  for_each_counted(p, share.begin, share.end, [&](std::int64_t begin, std::int64_t end) {
    Tensor counted = flat.slice_rows(share.offset + begin - share.begin, share.offset + end - share.begin);
    // A whole parameter is summed in its own shape: one rank's bits do not depend on where its buffers are cut.
    squares += sum_of_squares(context, end - begin == p.numel() ? counted.view(p.shape) : counted);
  });
  return squares;
}

double Optimizer::over_world(double sum) const {
  world_.all_reduce(Tensor(&sum, DType::f64, {1})).wait();
  return sum;
}

OptimizerResult Optimizer::step(const Context& context, const OptimizerSettings& settings, double lr, double loss) {
  const Tensor &values = set_.values(), &gradients = set_.gradients();
  auto share_of_bucket = [&](const Tensor& flat, int b) {
    const Bucket& bucket = set_.buckets()[std::size_t(b)];
    return flat.slice_rows(bucket.share_begin(), bucket.share_end());
  };
  OptimizerResult result;
  double squares = 0;
  for (const Parameter& p : set_.parameters()) squares += sum_of_squares_counted(context, p, share_of_bucket(gradients, set_.bucket_of(p)));
  squares = over_world(squares);
  result.grad_norm = std::sqrt(squares);
  result.skipped = !std::isfinite(squares) || !std::isfinite(loss);
  if (!result.skipped) {
    ++steps_;
    // Megatron and torch: clip coefficient = max_norm / (norm + 1e-6), at most 1.
    double clip = settings.clip_grad > 0 ? std::min(1.0, settings.clip_grad / (result.grad_norm + 1e-6)) : 1.0;
    for (const Parameter& p : set_.parameters()) {
      const ParameterSet::Share share = set_.share_of(p);
      if (share.begin == share.end) continue;
      if (before_update_) before_update_(share.bucket, share.offset, share.offset + share.end - share.begin);
      double decay = p.weight_decay == WeightDecay::yes ? settings.weight_decay : 0;
      AdamWStep step{lr, settings.beta1, settings.beta2, settings.eps, decay, steps_, clip};
      auto part = [&](const Tensor& flat) { return flat.slice_rows(share.offset, share.offset + share.end - share.begin); };
      const BucketShare& bucket = shares_[std::size_t(share.bucket)];
      adamw(context, step, part(share_of_bucket(gradients, share.bucket)), part(bucket.state[0]), part(bucket.state[1]), part(bucket.state[2]),
            part(share_of_bucket(values, share.bucket)));
    }
  }
  fill(context, gradients, 0);
  return result;
}

double Optimizer::params_norm(const Context& context) const {
  double squares = 0;
  for (const Parameter& p : set_.parameters()) squares += sum_of_squares_counted(context, p, state(OptimizerState::master, set_.bucket_of(p)));
  return std::sqrt(over_world(squares));
}

}  // namespace af
