#include "models/communication.h"

#include <algorithm>

#include "models/memory.h"

namespace af {
namespace {

// What all ranks of a group send together. x: bytes of the whole tensor.
std::int64_t all_reduce(std::int64_t ranks, std::int64_t x) { return 2 * (ranks - 1) * x; }
std::int64_t all_gather(std::int64_t ranks, std::int64_t x) { return (ranks - 1) * x; }
std::int64_t reduce_scatter(std::int64_t ranks, std::int64_t x) { return (ranks - 1) * x; }

struct Sizes {
  Sizes(const ModelConfig& model, const StepShape& shape)
      : n(shape.mesh.tp),
        a(std::int64_t(size_of(shape.dtype))),
        c(std::int64_t(size_of(accumulator_of(shape.dtype)))),
        activations(shape.tokens() * model.hidden_size * a) {}
  std::int64_t n, a, c;
  std::int64_t activations;  // [T, H]
};

std::int64_t enter(const Sizes& s, const StepShape& shape) { return shape.mesh.sequence_parallel ? all_gather(s.n, s.activations) : 0; }
std::int64_t leave(const Sizes& s, const StepShape& shape) {
  return shape.mesh.sequence_parallel ? reduce_scatter(s.n, s.activations) : all_reduce(s.n, s.activations);
}

// Parameters begin on 64-byte lines of the smallest type (parallel/parameter_set.h).
std::int64_t padded(std::int64_t elements) { return (elements + 31) / 32 * 32; }

std::int64_t routings(const RecomputeSettings& recompute, Again again) { return 1 + again.forward + recompute.moe; }

}  // namespace

Again again_of(const RecomputeSettings& r, const StageLayers& stage, std::int64_t layer) {
  if (r.granularity != RecomputeSettings::Granularity::full) return {};
  const std::int64_t i = layer - stage.begin;
  if (r.method == RecomputeSettings::Method::block) return {i < r.num_layers, false};
  return {true, (i + 1) % std::max<std::int64_t>(r.num_layers, 1) != 0 && layer + 1 != stage.end};
}

std::int64_t tp_attention_bytes(const ModelConfig& model, const StepShape& shape, Again again) {
  const Sizes s(model, shape);
  const std::int64_t forward = enter(s, shape) + leave(s, shape);  // the input is gathered, the output summed
  // dy is gathered; the input once more, for qkv's weight gradient; the input's gradient is summed.
  const std::int64_t backward = 2 * enter(s, shape) + leave(s, shape);
  return forward * (1 + again.forward) + backward;
}

std::int64_t tp_mlp_bytes(const ModelConfig& model, const StepShape& shape, Again again) {
  const Sizes s(model, shape);
  const std::int64_t in = enter(s, shape), out = leave(s, shape);
  return in * (1 + again.forward + shape.recompute.mlp) + out * (1 + again.output) + 2 * in + out;
}

std::int64_t tp_embedding_bytes(const ModelConfig& model, const StepShape& shape) {
  const Sizes s(model, shape);
  return leave(s, shape) + enter(s, shape);
}

std::int64_t tp_head_bytes(const ModelConfig& model, const StepShape& shape) {
  const Sizes s(model, shape);
  return enter(s, shape) + leave(s, shape) + all_gather(s.n, s.n * shape.tokens() * 3 * s.c);
}

std::int64_t tp_balance_bytes(const ModelConfig& model, const StepShape& shape, Again again) {
  const Sizes s(model, shape);
  const std::int64_t ranks = shape.mesh.tp * shape.mesh.cp;
  std::int64_t bytes = 0;
  if (shape.balance == BalanceType::aux_loss || shape.balance == BalanceType::seq_aux_loss)
    bytes += 2 * all_reduce(ranks, shape.micro_batch_size * model.num_experts * 8);
  if (shape.capacity) bytes += all_gather(ranks, ranks * shape.local_tokens() * model.num_experts_per_tok * (4 + s.c));  // expert and weight
  return routings(shape.recompute, again) * bytes;
}

std::int64_t tp_gradient_bytes(const ModelConfig& model, const StepShape& shape, const StageLayers& stage) {
  const Sizes s(model, shape);
  const std::int64_t h = model.hidden_size, d = model.head_dim, heads = model.num_key_value_heads;
  const std::int64_t norm = shape.mesh.sequence_parallel ? padded(h) : 0;  // each rank normalises its own tokens
  std::int64_t partial = stage.head ? norm : 0, replicas = 0;
  for (std::int64_t i = stage.begin; i < stage.end; ++i) {
    partial += 2 * norm + 2 * padded(d);  // q_norm and k_norm: each rank its own heads
    if (model.is_moe_layer(i)) partial += padded(model.num_experts * h);
    if (s.n > heads) {  // heads groups of n / heads ranks with the same key head: rows of k and v, to the end of the fused matrix
      const std::int64_t q = model.num_attention_heads / s.n * d * h;
      replicas += heads * all_reduce(s.n / heads, (padded(q + 2 * d * h) - q) * s.c);
    }
  }
  return all_reduce(s.n, partial * s.c) + replicas;
}

std::int64_t cp_row_bytes(const ModelConfig& model, const StepShape& shape, Again again) {
  const std::int64_t heads = std::max<std::int64_t>(model.num_key_value_heads / shape.mesh.tp, 1), row = heads * model.head_dim * std::int64_t(size_of(shape.dtype));
  const std::int64_t cores = 1 + again.forward + shape.recompute.core_attn;  // forwards of the attention: k, v
  return row * (2 * cores + 4);                                             // the backward: k, v, dk, dv
}

std::int64_t expert_row_bytes(const ModelConfig& model, const StepShape& shape, Again again) {
  const Sizes s(model, shape);
  const std::int64_t routed = routings(shape.recompute, again);
  const std::int64_t rows = routed + 1 + again.output + 2;  // x there, y back; dy there, dx back
  const std::int64_t weights = routed + 1;                  // the router's weight there, its gradient back
  return rows * model.hidden_size * s.a + weights * s.c;
}

std::int64_t ep_count_bytes(const ModelConfig& model, const StepShape& shape, Again again) {
  return routings(shape.recompute, again) * all_gather(shape.mesh.ep, shape.mesh.ep * model.num_experts * 8);
}

std::int64_t etp_count_bytes(const ModelConfig& model, const StepShape& shape, Again again) {
  return routings(shape.recompute, again) * all_gather(shape.mesh.etp, shape.mesh.etp * (model.num_experts + shape.mesh.ep) * 8);
}

std::int64_t pp_boundary_bytes(const ModelConfig& model, const StepShape& shape) {
  return 2 * shape.local_tokens() * model.hidden_size * std::int64_t(size_of(shape.dtype));  // activations there, their gradient back
}

std::int64_t pp_tied_bytes(const ModelConfig& model, const StepShape& shape) {
  if (!model.tie_word_embeddings || shape.mesh.pp == 1) return 0;
  std::int64_t bytes = 0;
  for (int r = 0; r < shape.mesh.tp; ++r)
    bytes += all_reduce(2, padded(part_of(model.vocab_size, shape.mesh.tp, r).size() * model.hidden_size) * std::int64_t(size_of(accumulator_of(shape.dtype))));
  return bytes * shape.mesh.cp * shape.mesh.dp;
}

std::int64_t dp_bytes(DType dtype, std::int64_t elements, int ranks) {
  return reduce_scatter(ranks, elements * std::int64_t(size_of(accumulator_of(dtype)))) + all_gather(ranks, elements * std::int64_t(size_of(dtype)));
}

MovedRows expected_rows(const ModelConfig& model, const StepShape& shape) {
  const MeshShape& m = shape.mesh;
  const std::int64_t micro_batches = shape.micro_batches * m.dp, chunk = shape.micro_batch_size * shape.seq_length / (2 * m.cp);
  MovedRows rows;
  // Rank r has chunks r and 2 CP - 1 - r, and needs all before the latter: 2 CP - 2 - r that it has not.
  for (int r = 0; m.cp > 1 && r < m.cp; ++r) rows.keys += micro_batches * chunk * (2 * m.cp - 2 - r);
  const std::int64_t choices = shape.local_tokens() * m.tp * m.cp * micro_batches * model.num_experts_per_tok;
  for (std::int64_t i = 0; i < model.num_hidden_layers; ++i) rows.experts.push_back(model.is_moe_layer(i) ? choices / m.ep * (m.ep - 1) : 0);
  return rows;
}

AxisBytes step_bytes(const ModelConfig& model, const StepShape& shape, const MovedRows& rows) {
  const MeshShape& m = shape.mesh;
  const std::int64_t micro_batches = shape.micro_batches, tp_groups = std::int64_t(m.cp) * m.dp, ranks = tp_groups * m.tp;  // of a stage
  AxisBytes b;
  for (std::size_t v = 0; v < shape.stages.size(); ++v) {
    const StageLayers& stage = shape.stages[v];
    if (stage.embedding) b[Axis::tp] += micro_batches * tp_groups * tp_embedding_bytes(model, shape);
    if (stage.head) b[Axis::tp] += micro_batches * tp_groups * tp_head_bytes(model, shape);
    b[Axis::tp] += tp_groups * tp_gradient_bytes(model, shape, stage);
    for (std::int64_t i = stage.begin; i < stage.end; ++i) {
      const Again again = again_of(shape.recompute, stage, i);
      b[Axis::tp] += micro_batches * tp_groups * tp_attention_bytes(model, shape, again);
      b[Axis::cp] += m.tp * rows.keys * cp_row_bytes(model, shape, again);
      if (!model.is_moe_layer(i)) {
        b[Axis::tp] += micro_batches * tp_groups * tp_mlp_bytes(model, shape, again);
        continue;
      }
      b[Axis::tp] += micro_batches * m.dp * tp_balance_bytes(model, shape, again);
      const std::int64_t row = expert_row_bytes(model, shape, again), choices = ranks * shape.local_tokens() * micro_batches * model.num_experts_per_tok;
      b[Axis::ep] += rows.experts[std::size_t(i)] * row + micro_batches * (ranks / m.ep) * ep_count_bytes(model, shape, again);
      b[Axis::etp] += all_gather(m.etp, choices * row) + micro_batches * (ranks / m.etp) * etp_count_bytes(model, shape, again);
    }
    const bool sent = v + 1 < shape.stages.size() && m.pp > 1;
    if (sent) b[Axis::pp] += micro_batches * ranks * pp_boundary_bytes(model, shape);
  }
  b[Axis::pp] += pp_tied_bytes(model, shape);
  for (int pp = 0; pp < m.pp; ++pp)
    for (int tp = 0; tp < m.tp; ++tp) {
      const RankParameters p = rank_parameters(model, m, shape.stages, pp, tp, shape.bucket_numel);
      b[Axis::dp] += dp_bytes(shape.dtype, p.dense, m.dp * m.cp);
      if (tp == 0) b[Axis::edp] += dp_bytes(shape.dtype, p.experts, m.edp()) * m.etp * m.ep;
    }
  b[Axis::dp] += std::int64_t(m.tp) * m.cp * m.pp * all_reduce(m.dp, 3 * 8);  // targets, squared lengths and micro-batches of the global batch
  return b;
}

}  // namespace af
