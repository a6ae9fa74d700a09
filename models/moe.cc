#include "models/moe.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <fmt/format.h>

#include "core/ops/elementwise.h"
#include "core/ops/matmul.h"
#include "core/ops/moe.h"
#include "core/ops/swiglu.h"

namespace af {
namespace {

// This rank's experts' matrices one after the other, of each the rows and columns that it has: gate and up stacked, or down alone.
Parameter expert_parameter(const ModelConfig& c, const ModelParallel& parallel, std::int64_t layer, const std::string& name,
                           const std::vector<std::string>& projections, const Shape& global, Range rows, Range cols) {
  Range experts = part_of(c.num_experts, parallel.mesh.shape.ep, parallel.mesh.position.ep);
  Parameter p;
  p.name = fmt::format("layers.{}.experts.{}", layer, name);
  p.shape = {experts.size(), std::int64_t(projections.size()) * rows.size(), cols.size()};
  p.grid = Grid::expert;
  std::int64_t offset = 0;
  for (std::int64_t e = experts.begin; e < experts.end; ++e)
    for (const std::string& projection : projections) {
      p.slabs.push_back({fmt::format("model.layers.{}.mlp.experts.{}.{}.weight", layer, e, projection), global, rows.begin, rows.size(), cols.begin,
                         cols.size(), offset});
      offset += rows.size() * cols.size();
    }
  return p;
}

Parameter gate_up_parameter(const ModelConfig& c, const ModelParallel& parallel, std::int64_t layer) {
  Range width = part_of(c.moe_intermediate_size, parallel.mesh.shape.etp, parallel.mesh.position.etp);
  return expert_parameter(c, parallel, layer, "gate_up", {"gate_proj", "up_proj"}, {c.moe_intermediate_size, c.hidden_size}, width, {0, c.hidden_size});
}

Parameter down_parameter(const ModelConfig& c, const ModelParallel& parallel, std::int64_t layer) {
  Range width = part_of(c.moe_intermediate_size, parallel.mesh.shape.etp, parallel.mesh.position.etp);
  return expert_parameter(c, parallel, layer, "down", {"down_proj"}, {c.hidden_size, c.moe_intermediate_size}, {0, c.hidden_size}, width);
}

Parameter router_parameter(const ModelConfig& c, const ModelParallel& parallel, std::int64_t layer) {
  Parameter p = whole_parameter(fmt::format("layers.{}.router", layer), fmt::format("model.layers.{}.mlp.gate.weight", layer), {c.num_experts, c.hidden_size});
  parallel.replicate_over_tp(p, Gradients::partial);  // each rank routes its own tokens
  return p;
}

// What a round takes of the scratch and of the pool ends with it, where there are several.
struct RoundMemory {
  RoundMemory(bool several, Arena& scratch, Arena& pool) {
    if (several) of_scratch.emplace(scratch), of_pool.emplace(pool);
  }
  std::optional<Arena::Scope> of_scratch, of_pool;  // destroyed in the other order
};

std::span<const std::int64_t> host_offsets(const Tensor& offsets) { return {offsets.as<std::int64_t>(), std::size_t(offsets.numel())}; }

}  // namespace

Moe::Moe(const ModelConfig& c, const ModelParallel& parallel, std::int64_t layer, ParameterSet& set)
    : experts_(c.num_experts),
      top_k_(c.num_experts_per_tok),
      hidden_(c.hidden_size),
      width_(c.moe_intermediate_size / parallel.mesh.shape.etp),
      norm_topk_(c.norm_topk_prob),
      config_(c),
      mesh_(parallel.mesh.shape),
      sharers_(parallel.mesh.tp_cp),
      tp_(parallel.tensor),
      dispatcher_(parallel.mesh, c.num_experts),
      router_(set.add(router_parameter(c, parallel, layer))),
      gate_up_(set.add(gate_up_parameter(c, parallel, layer))),
      down_(set.add(down_parameter(c, parallel, layer))) {}

Moe::Offsets Moe::expert_offsets(const Saved& saved, const Saved::Rows& rows) const {
  return host_offsets(dispatcher_.alone() ? saved.offsets : rows.round.offsets);
}

Range Moe::tokens_of(const Pass& pass, std::int64_t s) const {
  std::int64_t tokens = pass.batch.positions.numel(), per_sequence = tokens / pass.batch.sequences;
  std::int64_t first = tp_.first_token(tokens), local = tp_.local_tokens(tokens);
  return {std::clamp<std::int64_t>(s * per_sequence - first, 0, local), std::clamp<std::int64_t>((s + 1) * per_sequence - first, 0, local)};
}

void Moe::count_load(const Pass& pass, RouterStatistics& statistics, Saved& saved) const {
  const Context& c = pass.context;
  std::int64_t sequences = pass.batch.sequences;
  saved.counts = pass.keep.tensor({sequences, experts_}, DType::i64);
  Arena::Scope scope(c.scratch);
  RouterLoad own{saved.counts, c.scratch.tensor({sequences, experts_}, DType::f64)}, whole = own;
  if (tp_.sequence_parallel()) {  // a rank's tokens need not begin with a sequence
    fill(c, own.counts, 0);
    fill(c, own.prob_sums, 0);
    for (std::int64_t s = 0; s < sequences; ++s)
      if (Range t = tokens_of(pass, s); t.size() > 0)
        expert_load(c, saved.probs.slice_rows(t.begin, t.end), saved.expert.slice_rows(t.begin, t.end), own.counts.slice_rows(s, s + 1),
                    own.prob_sums.slice_rows(s, s + 1));
  } else {
    expert_load(c, saved.probs, saved.expert, own.counts, own.prob_sums);
  }
  bool needs_whole = pass.balance.type == BalanceType::aux_loss || pass.balance.type == BalanceType::seq_aux_loss;
  if (needs_whole && sharers_.size() > 1) {
    whole = {saved.counts, c.scratch.tensor({sequences, experts_}, DType::f64)};
    own.counts = c.scratch.tensor({sequences, experts_}, DType::i64);
    copy_integers(c, whole.counts, own.counts);
    convert(c, own.prob_sums, whole.prob_sums);
    Pending counting = sharers_.all_reduce(whole.counts), summing = sharers_.all_reduce(whole.prob_sums);
    counting.wait();
    summing.wait();
  }
  if (pass.mode == Mode::train)
    statistics.add(pass.balance, own, whole, sharers_.rank() == 0, saved.log_sum_exp, top_k_, saved.probs.rows() * sharers_.size());
}

Tensor Moe::within_capacity(const Pass& pass, const Saved& saved) const {
  const Context& c = pass.context;
  std::int64_t ranks = sharers_.size(), tokens = saved.expert.rows(), all = ranks * tokens;
  Tensor expert = saved.expert, weight = saved.weight, within = c.scratch.tensor({all, top_k_}, DType::i32);
  if (ranks > 1) {  // a few bytes for each choice, against H numbers of the row itself
    expert = c.scratch.tensor(within.shape, expert.dtype);
    weight = c.scratch.tensor(within.shape, weight.dtype);
    Pending experts = sharers_.all_gather(saved.expert, expert), weights = sharers_.all_gather(saved.weight, weight);
    experts.wait();
    weights.wait();
  }
  // Where in the micro-batch the tokens stand: the ranks of tp cut what a rank of cp has, its chunks of one sequence after the other.
  std::int64_t in_cp = pass.batch.positions.numel(), part = in_cp / pass.batch.sequences, tp_ranks = in_cp / tokens, cp_ranks = ranks / tp_ranks;
  std::vector<std::int64_t> place;
  for (std::int64_t cp = 0; cp < cp_ranks; ++cp) {
    std::vector<Range> chunks = context_chunks(part * cp_ranks, int(cp_ranks), int(cp));
    for (std::int64_t s = 0; s < pass.batch.sequences; ++s)
      for (Range chunk : chunks)
        for (std::int64_t i = chunk.begin; i < chunk.end; ++i) place.push_back(s * part * cp_ranks + i);
  }
  std::int64_t capacity = expert_capacity(all, top_k_, experts_, *pass.balance.capacity_factor);
  drop_beyond_capacity(capacity, pass.balance.drop_policy, experts_, place, expert, weight, within);
  return within.slice_rows(sharers_.rank() * tokens, (sharers_.rank() + 1) * tokens);
}

void Moe::route_tokens(const Pass& pass, const Tensor& x, RouterStatistics& statistics, Saved& saved) const {
  const Context& c = pass.context;
  std::int64_t tokens = x.rows(), choices = tokens * top_k_;
  DType accumulator = accumulator_of(x.dtype);
  saved.probs = pass.keep.tensor({tokens, experts_}, accumulator);
  saved.expert = pass.keep.tensor({tokens, top_k_}, DType::i32);
  saved.weight = pass.keep.tensor({tokens, top_k_}, accumulator);
  saved.log_sum_exp = pass.keep.tensor({tokens}, accumulator);
  saved.source = pass.keep.tensor({choices}, DType::i32);
  saved.position = pass.keep.tensor({tokens, top_k_}, DType::i32);
  saved.offsets = pass.keep.tensor({experts_ + 1}, DType::i64);
  {
    Arena::Scope scope(c.scratch);
    Tensor logits = c.scratch.tensor({tokens, experts_}, accumulator);
    router_.forward(c, x, logits);
    route(c, logits, int(top_k_), norm_topk_ ? NormTopk::yes : NormTopk::no, saved.probs, saved.expert, saved.weight, saved.log_sum_exp);
  }
  count_load(pass, statistics, saved);
  if (pass.balance.capacity_factor) {  // what is dropped is sorted behind the last expert's rows
    Arena::Scope scope(c.scratch);
    std::vector<std::int64_t> offsets(static_cast<std::size_t>(experts_ + 2));
    permutation(c, within_capacity(pass, saved), experts_ + 1, saved.source, saved.position, offsets.data());
    std::copy(offsets.begin(), offsets.end() - 1, saved.offsets.as<std::int64_t>());
  } else {
    permutation(c, saved.expert, experts_, saved.source, saved.position, saved.offsets.as<std::int64_t>());
  }
  if (pass.mode == Mode::train) statistics.dropped += double(choices - kept_rows(saved));
  saved.pool = &pass.routed;
  if (dispatcher_.alone()) return;
  saved.plan = dispatcher_.plan(c, pass.keep, host_offsets(saved.offsets), planned_rows(config_, mesh_, tokens, pass.balance));
  dispatcher_.sort_by_round(c, saved.plan, saved.source, saved.position);
  if (pass.mode == Mode::train && saved.plan.rounds > 1 && dispatcher_.speaks()) statistics.in_rounds += 1;
}

void Moe::to_experts(const Pass& pass, const Saved& saved, const TokenDispatcher::Round& round, const Tensor& x, const Tensor& home,
                     const Tensor& out) const {
  const Context& c = pass.context;
  Tensor source = saved.source.slice_rows(round.sent.begin, round.sent.end);
  if (dispatcher_.alone()) return permute_rows(c, x, source, int(top_k_), out);
  Arena::Scope scope(c.scratch);
  Tensor choices = home.empty() ? c.scratch.tensor({source.numel(), x.cols()}, x.dtype) : home.slice_rows(round.sent.begin, round.sent.end);
  permute_rows(c, x, source, int(top_k_), choices);
  dispatcher_.dispatch(c, round, choices, out);
}

void Moe::scalars_to_experts(const Pass& pass, const Saved& saved, const TokenDispatcher::Round& round, const Tensor& weight,
                             const Tensor& out) const {
  const Context& c = pass.context;
  Tensor source = saved.source.slice_rows(round.sent.begin, round.sent.end);
  if (dispatcher_.alone()) return permute_scalars(c, weight, source, out);
  Arena::Scope scope(c.scratch);
  Tensor choices = c.scratch.tensor({source.numel(), 1}, weight.dtype);
  permute_scalars(c, weight, source, choices);
  dispatcher_.dispatch(c, round, choices, out.view({out.numel(), 1}));
}

// Gather the rows, gate_up, activation.
Moe::Saved::Rows Moe::activate(const Pass& pass, Arena& memory, Arena& act_memory, const Tensor& x, const Tensor& home, const Saved& saved,
                               std::int64_t index) const {
  const Context& c = pass.context;
  Saved::Rows rows;
  if (dispatcher_.alone()) rows.round.sent = {0, rows.round.rows = host_offsets(saved.offsets).back()};
  else rows.round = dispatcher_.round(c, memory, saved.plan, index);
  std::int64_t n = rows.round.rows;
  rows.row_weight = memory.tensor({n}, saved.weight.dtype);
  rows.x = memory.tensor({n, hidden_}, x.dtype);
  rows.gate_up = memory.tensor({n, 2 * width_}, x.dtype);
  rows.act = act_memory.tensor({n, width_}, x.dtype);
  scalars_to_experts(pass, saved, rows.round, saved.weight, rows.row_weight);
  to_experts(pass, saved, rows.round, x, home, rows.x);
  grouped_matmul(c, rows.x, gate_up_->value, Trans::yes, expert_offsets(saved, rows), rows.gate_up);
  swiglu(c, rows.gate_up, rows.row_weight, rows.act);
  return rows;
}

void Moe::forward(const Pass& outer, const Tensor& x, RouterStatistics& statistics, Saved& saved, const Tensor& y) const {
  const Context& c = outer.context;
  Arena::Scope scope(c.scratch);
  Pass pass = outer.recompute.moe ? outer.in_scratch(outer.mode) : outer;
  route_tokens(pass, x, statistics, saved);
  bool several = saved.plan.rounds > 1;
  std::int64_t choices = saved.source.numel(), kept = kept_rows(saved);
  Tensor out = y.empty() ? Tensor() : c.scratch.tensor({choices, hidden_}, x.dtype);
  if (kept < choices && !y.empty()) fill(c, out.slice_rows(kept, choices), 0);
  for (std::int64_t i = 0; i < saved.plan.rounds; ++i) {
    if (several && y.empty()) break;
    RoundMemory memory(several, c.scratch, pass.routed);
    Saved::Rows rows = activate(pass, pass.routed, pass.recompute.moe_act ? c.scratch : pass.routed, x, out, saved, i);
    if (!y.empty()) {
      Tensor home = out.slice_rows(rows.round.sent.begin, rows.round.sent.end);
      Tensor expert_out = dispatcher_.alone() ? home : c.scratch.tensor({rows.size(), hidden_}, x.dtype);
      grouped_matmul(c, rows.act, down_->value, Trans::yes, expert_offsets(saved, rows), expert_out);
      if (!dispatcher_.alone()) dispatcher_.combine(c, rows.round, expert_out, home);
    }
    if (!several) saved.rows = rows;
  }
  if (!y.empty()) unpermute_sum(c, out, saved.position, y, y);
  if (outer.recompute.moe) saved = {};
  else if (outer.recompute.moe_act) saved.rows.act = {};
}

void Moe::backward(const Pass& outer, const Tensor& dy, const Tensor& x, const RouterStatistics& statistics, const Saved& kept, const Tensor& dx) const {
  const Context& c = outer.context;
  Arena::Scope scope(c.scratch);
  Saved saved = kept;
  if (saved.empty()) {
    RouterStatistics unused;  // Mode::recompute counts nothing
    route_tokens(outer.again(), x, unused, saved);
  }
  bool several = saved.plan.rounds > 1;
  Pass pass = outer;
  if (several) pass.delayed = nullptr;  // what a later weight gradient needs would be more than there is memory for
  std::int64_t choices = saved.source.numel(), kept_here = kept_rows(saved);
  Tensor d_choices = c.scratch.tensor({choices, hidden_}, x.dtype), d_weights = c.scratch.tensor({choices}, saved.weight.dtype);
  if (kept_here < choices) {
    fill(c, d_choices.slice_rows(kept_here, choices), 0);
    fill(c, d_weights.slice_rows(kept_here, choices), 0);
  }
  for (std::int64_t i = 0; i < saved.plan.rounds; ++i) {
    RoundMemory memory(several, c.scratch, *saved.pool);
    Saved::Rows rows = saved.rows;
    if (rows.x.empty()) {
      rows = activate(pass, *saved.pool, pass.recompute.moe_act && several ? c.scratch : *saved.pool, x, d_choices, saved, i);
    } else if (rows.act.empty()) {
      rows.act = pass.lasting().tensor({rows.size(), width_}, x.dtype);
      swiglu(c, rows.gate_up, rows.row_weight, rows.act);
    }
    experts_backward(pass, dy, saved, rows, d_choices, d_weights);
  }
  unpermute_sum(c, d_choices, saved.position, {}, dx);
  router_backward(pass, d_weights, x, statistics, saved, dx);
}

void Moe::experts_backward(const Pass& pass, const Tensor& dy, const Saved& saved, const Saved::Rows& rows, const Tensor& home,
                           const Tensor& home_weights) const {
  const Context& c = pass.context;
  Range sent = rows.round.sent;
  Tensor d_choices = home.slice_rows(sent.begin, sent.end), d_weights = home_weights.slice_rows(sent.begin, sent.end);
  bool alone = dispatcher_.alone();
  Offsets offsets = expert_offsets(saved, rows);
  Shape shape = {rows.size(), hidden_};

  // Down projection and activation; the router's weight is a factor of the activation.
  Tensor d_out = alone && !pass.delayed ? d_choices : pass.lasting().tensor(shape, dy.dtype), d_act = c.scratch.tensor({rows.size(), width_}, dy.dtype);
  to_experts(pass, saved, rows.round, dy, home, d_out);
  grouped_matmul(c, d_out, down_->value, Trans::no, offsets, d_act);
  if (pass.delayed) pass.delayed->add(down_, d_out, rows.act, offsets);
  else grouped_matmul_weight_gradient(c, d_out, rows.act, offsets, down_->gradient);
  Tensor d_gate_up = rows.gate_up;  // in place: gate_up has served
  Tensor d_row_weight = alone ? d_weights : c.scratch.tensor({rows.size()}, d_weights.dtype);
  swiglu_backward(c, d_act, rows.gate_up, rows.row_weight, d_gate_up, d_row_weight);

  // Gate and up projections, back to token order: the rows travel while the weight gradient is computed.
  Tensor d_rows = alone ? d_choices : pass.delayed ? c.scratch.tensor(shape, dy.dtype) : d_out;  // d_out has served
  grouped_matmul(c, d_gate_up, gate_up_->value, Trans::no, offsets, d_rows);
  Pending travelling;
  if (!alone) travelling = dispatcher_.start_combine(c, c.scratch, rows.round, d_rows, d_choices);
  if (pass.delayed) pass.delayed->add(gate_up_, d_gate_up, rows.x, offsets);
  else grouped_matmul_weight_gradient(c, d_gate_up, rows.x, offsets, gate_up_->gradient);
  travelling.wait();
  if (!alone) dispatcher_.combine(c, rows.round, d_row_weight.view({rows.size(), 1}), d_weights.view({d_weights.numel(), 1}));
}

// dx += the router's part: from the experts' weights, the balance loss and the z-loss.
void Moe::router_backward(const Pass& pass, const Tensor& d_choices, const Tensor& x, const RouterStatistics& statistics, const Saved& saved,
                          const Tensor& dx) const {
  const Context& c = pass.context;
  std::int64_t tokens = x.rows(), all_tokens = tokens * sharers_.size();
  DType accumulator = accumulator_of(x.dtype);
  Tensor d_weight = c.scratch.tensor({tokens, top_k_}, accumulator), d_probs = c.scratch.tensor(saved.counts.shape, accumulator);
  Tensor d_logits = c.scratch.tensor({tokens, experts_}, accumulator);
  unpermute_scalars(c, d_choices, saved.position, d_weight);
  balance_gradient(pass.balance, statistics, saved.counts, all_tokens, top_k_, pass.micro_batches, d_probs);
  double z_scale = pass.balance.z_loss_coeff / (double(all_tokens) * double(pass.micro_batches));
  NormTopk norm = norm_topk_ ? NormTopk::yes : NormTopk::no;
  if (tp_.sequence_parallel()) {
    for (std::int64_t s = 0; s < pass.batch.sequences; ++s) {
      Range t = tokens_of(pass, s);
      auto part = [&](const Tensor& tensor) { return tensor.slice_rows(t.begin, t.end); };
      if (t.size() > 0)
        route_backward(c, part(d_weight),
                       {part(saved.probs), part(saved.expert), part(saved.weight), part(saved.log_sum_exp), norm, d_probs.slice_rows(s, s + 1), z_scale},
                       part(d_logits));
    }
  } else {
    route_backward(c, d_weight, {saved.probs, saved.expert, saved.weight, saved.log_sum_exp, norm, d_probs, z_scale}, d_logits);
  }
  router_.backward_input(c, d_logits, dx, Accumulate::yes);
  router_.backward_weight(c, d_logits, x);
}

std::size_t Moe::routed_bytes(std::int64_t tokens, DType dtype, const RecomputeSettings& recompute, const BalanceSettings& balance) const {
  if (recompute.moe) return 0;
  std::int64_t rows = planned_rows(config_, mesh_, tokens, balance), columns[] = {hidden_, 2 * width_, recompute.moe_act ? 0 : width_};
  auto line = [](std::int64_t n, DType type) { return (std::size_t(n) * size_of(type) + 63) / 64 * 64; };
  std::size_t bytes = line(rows, accumulator_of(dtype)) + (dispatcher_.alone() ? 0 : dispatcher_.round_bytes(rows));
  for (std::int64_t n : columns) bytes += line(rows * n, dtype);
  return bytes;
}

std::int64_t planned_rows(const ModelConfig& c, const MeshShape& mesh, std::int64_t tokens, const BalanceSettings& balance) {
  if (mesh.ep == 1 && mesh.etp == 1) return tokens * c.num_experts_per_tok;
  std::int64_t all = tokens * mesh.etp * mesh.ep;  // tokens of the ranks that exchange rows: each has a choice only once
  std::int64_t most = all * std::min(c.num_experts_per_tok, c.num_experts / mesh.ep);
  double planned = std::ceil(double(tokens * mesh.etp * c.num_experts_per_tok) * balance.memory_factor);
  return std::max<std::int64_t>(std::int64_t(std::min(planned, double(most))), 1);
}

}  // namespace af
