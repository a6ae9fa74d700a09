#include "models/mlp.h"

#include <fmt/format.h>

#include "core/ops/swiglu.h"

namespace af {

namespace {

Parameter gate_up_parameter(const ModelConfig& c, std::int64_t layer, Range columns) {
  std::string prefix = fmt::format("model.layers.{}.mlp.", layer);
  return stacked_parameter(fmt::format("layers.{}.mlp.gate_up", layer),
                           {{prefix + "gate_proj.weight", c.intermediate_size, columns}, {prefix + "up_proj.weight", c.intermediate_size, columns}},
                           c.hidden_size);
}

Range own_columns(const ModelConfig& c, const ModelParallel& parallel) {
  return part_of(c.intermediate_size, parallel.mesh.shape.tp, parallel.mesh.position.tp);
}

}  // namespace

Mlp::Mlp(const ModelConfig& c, const ModelParallel& parallel, std::int64_t layer, ParameterSet& set)
    : gate_up_(set.add(gate_up_parameter(c, layer, own_columns(c, parallel))), parallel.tensor),
      down_(set.add(column_parameter(fmt::format("layers.{}.mlp.down", layer), fmt::format("model.layers.{}.mlp.down_proj.weight", layer),
                                     {c.hidden_size, c.intermediate_size}, own_columns(c, parallel))),
            parallel.tensor) {}

void Mlp::activate(const Pass& pass, const Tensor& x_local, Saved& saved) const {
  const Context& c = pass.context;
  std::int64_t tokens = pass.batch.positions.numel(), width = gate_up_.weight().shape[0];
  saved.gate_up = pass.keep.tensor({tokens, width}, x_local.dtype);
  saved.act = pass.keep.tensor({tokens, width / 2}, x_local.dtype);
  Arena::Scope scope(c.scratch);
  gate_up_.forward(c, gate_up_.tensor_parallel().enter(c.scratch, x_local), saved.gate_up);
  swiglu(c, saved.gate_up, {}, saved.act);
}

void Mlp::forward(const Pass& pass, const Tensor& x, Saved& saved, const Tensor& y) const {
  Arena::Scope scope(pass.context.scratch);
  activate(pass.recompute.mlp ? pass.in_scratch(pass.mode) : pass, x, saved);
  if (!y.empty()) down_.forward_add(pass.context, saved.act, y);
  if (pass.recompute.mlp) saved = {};
}

void Mlp::backward(const Pass& pass, const Tensor& dy, const Tensor& x, const Saved& kept, const Tensor& dx) const {
  const Context& c = pass.context;
  Arena::Scope scope(c.scratch);
  Saved saved = kept;
  if (saved.gate_up.empty()) activate(pass.again(), x, saved);
  Tensor d_act = c.scratch.tensor(saved.act.shape, x.dtype), d_gate_up = saved.gate_up;  // in place: it has served
  down_.backward(c, pass.lasting(), dy, saved.act, d_act, pass.delayed);
  swiglu_backward(c, d_act, saved.gate_up, {}, d_gate_up, {});
  gate_up_.backward(c, d_gate_up, x, dx, pass.delayed);
}

}  // namespace af
