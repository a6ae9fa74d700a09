// AdamW over this rank's share of a ParameterSet (ZeRO-1: master weights and moments exist nowhere else), with clipping by
// the global gradient norm. The gradients of the share must be complete (GradientReducer, data_parallel.h), and the other
// ranks get the new values afterwards (ParameterGatherer); with one rank neither has anything to do.
#pragma once
#include <functional>
#include <utility>

#include "core/memory.h"
#include "parallel/parameter_set.h"

namespace af {

struct OptimizerSettings {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
  double clip_grad = 1.0;  // global norm; 0: no clipping
};

struct OptimizerResult {
  double grad_norm = 0;    // before clipping; of the whole model, the same on every rank
  bool skipped = false;    // the loss, or a gradient on any rank, was not finite: nothing was changed on any
};

enum class OptimizerState { master, exp_avg, exp_avg_sq };

class Optimizer {
 public:
  // Memory of the state: at once (zero, masters the values as they are), or bucket by bucket with allocate() (placement.h).
  enum class Memory { now, later };
  Optimizer(const Device& device, ParameterSet& set, const Comm& world = {}, Memory memory = Memory::now);
  // Takes the values as they are now for the master weights: after initialisation or import.
  void reset_master(const Context& context);
  // The other way round: values of the share from the masters, to be gathered. After the masters were loaded.
  void values_from_master(const Context& context);
  // One step with the set's gradients, those of `loss`, which are zeroed afterwards. Collective over world, as params_norm().
  OptimizerResult step(const Context& context, const OptimizerSettings& settings, double lr, double loss = 0);
  double params_norm(const Context& context) const;
  // Told before step() changes elements [begin, end) of the share of a bucket, in the order of the parameters: whoever still
  // reads the state (a checkpoint being written) copies them first. An empty function: nobody.
  using BeforeUpdate = std::function<void(int bucket, std::int64_t begin, std::int64_t end)>;
  void set_before_update(BeforeUpdate before) { before_update_ = std::move(before); }

  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }
  // State of the share of set.buckets()[bucket], flat, in the accumulator type. Masters are the set's values themselves
  // where these are of that type.
  const Tensor& state(OptimizerState state, int bucket) const { return shares_[std::size_t(bucket)].state[int(state)]; }
  void allocate(int bucket);
  void release(int bucket);
  bool allocated(int bucket) const { return !shares_[std::size_t(bucket)].state[0].empty(); }

 private:
  struct BucketShare {
    Buffer buffer;
    Tensor state[3];
  };
  double sum_of_squares_counted(const Context& context, const Parameter& p, const Tensor& share) const;
  double over_world(double sum) const;

  Device device_;
  ParameterSet& set_;
  Comm world_;
  std::vector<BucketShare> shares_;
  std::int64_t steps_ = 0;
  BeforeUpdate before_update_;
};

}  // namespace af
