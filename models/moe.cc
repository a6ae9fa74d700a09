#include "models/moe.h"

#include <fmt/format.h>

#include "core/ops/matmul.h"
#include "core/ops/moe.h"
#include "core/ops/swiglu.h"

namespace af {
namespace {

// All experts' matrices one after the other; `projections` of each stacked: gate and up, or down alone.
Parameter expert_parameter(const ModelConfig& c, std::int64_t layer, const std::string& name, const std::vector<std::string>& projections,
                           std::int64_t rows, std::int64_t cols) {
  Parameter p;
  p.name = fmt::format("layers.{}.experts.{}", layer, name);
  p.shape = {c.num_experts, std::int64_t(projections.size()) * rows, cols};
  std::int64_t offset = 0;
  for (std::int64_t e = 0; e < c.num_experts; ++e)
    for (const std::string& projection : projections) {
      p.slabs.push_back({fmt::format("model.layers.{}.mlp.experts.{}.{}.weight", layer, e, projection), Shape{rows, cols}, 0, rows, 0, cols, offset});
      offset += rows * cols;
    }
  return p;
}

std::span<const std::int64_t> host_offsets(const Tensor& offsets) { return {offsets.as<std::int64_t>(), std::size_t(offsets.numel())}; }

}  // namespace

Moe::Moe(const ModelConfig& c, std::int64_t layer, ParameterSet& set)
    : experts_(c.num_experts),
      top_k_(c.num_experts_per_tok),
      hidden_(c.hidden_size),
      width_(c.moe_intermediate_size),
      norm_topk_(c.norm_topk_prob),
      router_(set.add(whole_parameter(fmt::format("layers.{}.router", layer), fmt::format("model.layers.{}.mlp.gate.weight", layer),
                                      {c.num_experts, c.hidden_size}))),
      gate_up_(set.add(expert_parameter(c, layer, "gate_up", {"gate_proj", "up_proj"}, c.moe_intermediate_size, c.hidden_size))),
      down_(set.add(expert_parameter(c, layer, "down", {"down_proj"}, c.hidden_size, c.moe_intermediate_size))) {}

void Moe::route_tokens(const Pass& pass, const Tensor& x, RouterStatistics& statistics, Saved& saved) const {
  const Context& c = pass.context;
  std::int64_t tokens = x.rows(), rows = tokens * top_k_, sequences = pass.batch.sequences;
  DType accumulator = accumulator_of(x.dtype);
  saved.probs = pass.keep.tensor({tokens, experts_}, accumulator);
  saved.expert = pass.keep.tensor({tokens, top_k_}, DType::i32);
  saved.weight = pass.keep.tensor({tokens, top_k_}, accumulator);
  saved.log_sum_exp = pass.keep.tensor({tokens}, accumulator);
  saved.counts = pass.keep.tensor({sequences, experts_}, DType::i64);
  saved.source = pass.keep.tensor({rows}, DType::i32);
  saved.position = pass.keep.tensor({tokens, top_k_}, DType::i32);
  saved.offsets = pass.keep.tensor({experts_ + 1}, DType::i64);
  saved.row_weight = pass.keep.tensor({rows}, accumulator);

  Arena::Scope scope(c.scratch);
  Tensor logits = c.scratch.tensor({tokens, experts_}, accumulator), prob_sums = c.scratch.tensor({sequences, experts_}, DType::f64);
  router_.forward(c, x, logits);
  route(c, logits, int(top_k_), norm_topk_ ? NormTopk::yes : NormTopk::no, saved.probs, saved.expert, saved.weight, saved.log_sum_exp);
  expert_load(c, saved.probs, saved.expert, saved.counts, prob_sums);
  if (pass.mode == Mode::train) statistics.add(pass.balance, saved.counts, prob_sums, saved.log_sum_exp, top_k_);
  permutation(c, saved.expert, experts_, saved.source, saved.position, saved.offsets.as<std::int64_t>());
  permute_scalars(c, saved.weight, saved.source, saved.row_weight);
}

// The experts' first half: gather the rows, gate_up, activation.
void Moe::activate(const Pass& pass, Arena& act_memory, const Tensor& x, Saved& saved) const {
  const Context& c = pass.context;
  std::int64_t rows = saved.source.numel();
  saved.x = pass.routed.tensor({rows, hidden_}, x.dtype);
  saved.gate_up = pass.routed.tensor({rows, 2 * width_}, x.dtype);
  saved.act = act_memory.tensor({rows, width_}, x.dtype);
  permute_rows(c, x, saved.source, int(top_k_), saved.x);
  grouped_matmul(c, saved.x, gate_up_->value, Trans::yes, host_offsets(saved.offsets), saved.gate_up);
  swiglu(c, saved.gate_up, saved.row_weight, saved.act);
}

void Moe::forward(const Pass& outer, const Tensor& x, RouterStatistics& statistics, Saved& saved, const Tensor& y) const {
  const Context& c = outer.context;
  Arena::Scope scope(c.scratch);
  Pass pass = outer.recompute.moe ? outer.in_scratch(outer.mode) : outer;
  route_tokens(pass, x, statistics, saved);
  activate(pass, pass.recompute.moe_act ? c.scratch : pass.routed, x, saved);
  if (!y.empty()) {
    Tensor expert_out = c.scratch.tensor({saved.act.rows(), hidden_}, x.dtype);
    grouped_matmul(c, saved.act, down_->value, Trans::yes, host_offsets(saved.offsets), expert_out);
    unpermute_sum(c, expert_out, saved.position, y, y);
  }
  if (outer.recompute.moe) saved = {};
  else if (outer.recompute.moe_act) saved.act = {};
}

void Moe::backward(const Pass& pass, const Tensor& dy, const Tensor& x, const RouterStatistics& statistics, const Saved& kept, const Tensor& dx) const {
  const Context& c = pass.context;
  Arena::Scope scope(c.scratch);
  Saved saved = kept;
  if (saved.empty()) {
    Pass again = pass.in_scratch(Mode::recompute);
    RouterStatistics unused;  // Mode::recompute counts nothing
    route_tokens(again, x, unused, saved);
    activate(again, c.scratch, x, saved);
  }
  if (saved.act.empty()) {
    saved.act = c.scratch.tensor({saved.gate_up.rows(), width_}, x.dtype);
    swiglu(c, saved.gate_up, saved.row_weight, saved.act);
  }
  std::int64_t tokens = x.rows(), rows = saved.source.numel();
  DType accumulator = accumulator_of(x.dtype);
  std::span<const std::int64_t> offsets = host_offsets(saved.offsets);

  // Down projection and activation; the router's weight is a factor of the activation.
  Tensor d_out = c.scratch.tensor({rows, hidden_}, x.dtype), d_act = c.scratch.tensor({rows, width_}, x.dtype);
  permute_rows(c, dy, saved.source, int(top_k_), d_out);
  grouped_matmul(c, d_out, down_->value, Trans::no, offsets, d_act);
  grouped_matmul_weight_gradient(c, d_out, saved.act, offsets, down_->gradient);
  Tensor d_gate_up = saved.gate_up, d_row_weight = c.scratch.tensor({rows}, accumulator);  // in place: gate_up has served
  swiglu_backward(c, d_act, saved.gate_up, saved.row_weight, d_gate_up, d_row_weight);

  // Gate and up projections, back to token order. d_out has served: its memory takes d x.
  grouped_matmul(c, d_gate_up, gate_up_->value, Trans::no, offsets, d_out);
  grouped_matmul_weight_gradient(c, d_gate_up, saved.x, offsets, gate_up_->gradient);
  unpermute_sum(c, d_out, saved.position, {}, dx);

  // Router: from the weights, the balance loss and the z-loss.
  Tensor d_weight = c.scratch.tensor({tokens, top_k_}, accumulator), d_logits = c.scratch.tensor({tokens, experts_}, accumulator);
  Tensor d_probs = c.scratch.tensor(saved.counts.shape, accumulator);
  unpermute_scalars(c, d_row_weight, saved.position, d_weight);
  balance_gradient(pass.balance, statistics, saved.counts, tokens, top_k_, pass.micro_batches, d_probs);
  double z_scale = pass.balance.z_loss_coeff / (double(tokens) * double(pass.micro_batches));
  RouteBackward p{saved.probs, saved.expert, saved.weight, saved.log_sum_exp, norm_topk_ ? NormTopk::yes : NormTopk::no, d_probs, z_scale};
  route_backward(c, d_weight, p, d_logits);
  router_.backward_input(c, d_logits, dx, Accumulate::yes);
  router_.backward_weight(c, d_logits, x);
}

std::size_t Moe::routed_bytes(std::int64_t tokens, DType dtype, const RecomputeSettings& recompute) const {
  if (recompute.moe) return 0;
  std::int64_t columns[] = {hidden_, 2 * width_, recompute.moe_act ? 0 : width_};
  std::size_t bytes = 0;
  for (std::int64_t n : columns) bytes += (std::size_t(tokens * top_k_ * n) * size_of(dtype) + 63) / 64 * 64;
  return bytes;
}

}  // namespace af
