// The dense SwiGLU MLP: y = down(silu(gate x) * up x), gate and up fused in one matrix.
#pragma once
#include "models/config.h"
#include "models/model_parallel.h"
#include "models/pass.h"
#include "parallel/linear.h"
#include "parallel/parameter_set.h"

namespace af {

class Mlp {
 public:
  struct Saved {
    Tensor gate_up;  // [T, 2F]; recompute mlp: empty
    Tensor act;      // [T, F]; recompute mlp: empty
  };
  Mlp(const ModelConfig& config, const ModelParallel& parallel, std::int64_t layer, ParameterSet& set);

  // y [T_local, H] += mlp(x), x [T_local, H]; an empty y: only what the backward needs.
  void forward(const Pass& pass, const Tensor& x, Saved& saved, const Tensor& y) const;
  // Uses `saved` up: gate_up's memory takes its gradient.
  void backward(const Pass& pass, const Tensor& dy, const Tensor& x, const Saved& saved, const Tensor& dx) const;

 private:
  void activate(const Pass& pass, const Tensor& x, Saved& saved) const;

  ColumnParallelLinear gate_up_;
  RowParallelLinear down_;
};

}  // namespace af
