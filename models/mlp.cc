#include "models/mlp.h"

#include <fmt/format.h>

#include "core/ops/swiglu.h"

namespace af {

Mlp::Mlp(const ModelConfig& c, std::int64_t layer, ParameterSet& set)
    : gate_up_(set.add(stacked_parameter(fmt::format("layers.{}.mlp.gate_up", layer),
                                         {{fmt::format("model.layers.{}.mlp.gate_proj.weight", layer), c.intermediate_size},
                                          {fmt::format("model.layers.{}.mlp.up_proj.weight", layer), c.intermediate_size}},
                                         c.hidden_size))),
      down_(set.add(whole_parameter(fmt::format("layers.{}.mlp.down", layer), fmt::format("model.layers.{}.mlp.down_proj.weight", layer),
                                    {c.hidden_size, c.intermediate_size}))) {}

void Mlp::activate(const Pass& pass, const Tensor& x, Saved& saved) const {
  std::int64_t width = gate_up_.weight().shape[0];
  saved.gate_up = pass.keep.tensor({x.rows(), width}, x.dtype);
  saved.act = pass.keep.tensor({x.rows(), width / 2}, x.dtype);
  gate_up_.forward(pass.context, x, saved.gate_up);
  swiglu(pass.context, saved.gate_up, {}, saved.act);
}

void Mlp::forward(const Pass& pass, const Tensor& x, Saved& saved, const Tensor& y) const {
  Arena::Scope scope(pass.context.scratch);
  activate(pass.recompute.mlp ? pass.in_scratch(pass.mode) : pass, x, saved);
  if (!y.empty()) down_.forward(pass.context, saved.act, y, Accumulate::yes);
  if (pass.recompute.mlp) saved = {};
}

void Mlp::backward(const Pass& pass, const Tensor& dy, const Tensor& x, const Saved& kept, const Tensor& dx) const {
  const Context& c = pass.context;
  Arena::Scope scope(c.scratch);
  Saved saved = kept;
  if (saved.gate_up.empty()) activate(pass.in_scratch(Mode::recompute), x, saved);
  Tensor d_act = c.scratch.tensor(saved.act.shape, x.dtype), d_gate_up = saved.gate_up;  // in place: it has served
  down_.backward_input(c, dy, d_act);
  down_.backward_weight(c, dy, saved.act);
  swiglu_backward(c, d_act, saved.gate_up, {}, d_gate_up, {});
  gate_up_.backward_input(c, d_gate_up, dx);
  gate_up_.backward_weight(c, d_gate_up, x);
}

}  // namespace af
