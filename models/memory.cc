#include "models/memory.h"

#include <algorithm>

#include "models/flops.h"
#include "models/qwen3.h"

namespace af {
namespace {

// Adds up tensors as an Arena lays them out: each begins on a 64-byte line and takes one at least.
struct Bytes {
  std::int64_t sum = 0;
  void add(std::int64_t elements, DType dtype) { sum += (std::max<std::int64_t>(elements * std::int64_t(size_of(dtype)), 1) + 63) / 64 * 64; }
  // Of memory that is free again before the next such: the most.
  static std::int64_t most(std::initializer_list<Bytes> phases) {
    std::int64_t bytes = 0;
    for (const Bytes& phase : phases) bytes = std::max(bytes, phase.sum);
    return bytes;
  }
};

// Letters as in pass.h: T, t = T_local, H, D, Hq, Hkv, F, E, k, R, N, S, V; a: activations, c: accumulators. Heads and widths are this rank's.
struct Count {
  Count(const ModelConfig& config, const RecomputeSettings& settings, DType dtype, const ActivationShape& s)
      : m(config), recompute(settings), shape(s), a(dtype), c(accumulator_of(dtype)), T(s.tokens), t(s.mesh.sequence_parallel ? T / s.mesh.tp : T),
        S(s.sequences), H(m.hidden_size), D(m.head_dim), Hq(m.num_attention_heads / s.mesh.tp), Hkv(std::max<std::int64_t>(m.num_key_value_heads / s.mesh.tp, 1)),
        F(m.intermediate_size / s.mesh.tp), Fe(m.moe_intermediate_size / s.mesh.etp), E(m.num_experts), R(t * m.num_experts_per_tok),
        N(s.expert_rows >= 0 ? s.expert_rows : s.mesh.etp * R) {}
  const ModelConfig& m;
  const RecomputeSettings& recompute;
  const ActivationShape& shape;
  DType a, c;
  std::int64_t T, t, S, H, D, Hq, Hkv, F, Fe, E, R, N;
  std::int64_t qkv_columns() const { return (Hq + 2 * Hkv) * D; }
  bool alone() const { return shape.mesh.ep == 1 && shape.mesh.etp == 1; }
  bool sequence() const { return shape.mesh.sequence_parallel; }

  // The collectives' memory (parallel/tensor_parallel.h, context_parallel.h, token_dispatcher.h).
  void enter(Bytes& b) const {
    if (sequence()) b.add(T * H, a);
  }
  void leave(Bytes& b) const { enter(b); }
  void row_parallel_forward(Bytes& b) const {
    if (shape.mesh.tp == 1) return;
    b.add(t * H, a);
    leave(b);
  }
  std::int64_t key_rows() const { return shape.key_rows >= 0 ? shape.key_rows : T * shape.mesh.cp; }
  void keys(Bytes& b) const {  // k and v: sent (as much as is received, on average), received, in order
    for (int i = 0; i < 6 && shape.mesh.cp > 1; ++i) b.add(key_rows() * Hkv * D, a);
  }
  void key_gradients(Bytes& b) const {  // d_keys, d_values; sent, received
    for (int i = 0; i < 6 && shape.mesh.cp > 1; ++i) b.add(key_rows() * Hkv * D, a);
  }
  void dispatch(Bytes& b) const {
    if (!alone()) b.add(N * H, a);
  }
  void combine(Bytes& b) const {
    if (alone()) return;
    b.add(N * H, a);
    if (shape.mesh.etp > 1) b.add(N / shape.mesh.etp * H, a);
  }

  // Kept of attention (models/attention.cc).
  void queries_and_keys(Bytes& b) const {
    b.add(T * Hq * D, a);
    b.add(T * Hkv * D, a);
  }
  void attention(Bytes& b) const {
    b.add(T * qkv_columns(), a);
    b.add(T * Hq, c);
    b.add(T * Hkv, c);
    if (!recompute.layernorm) queries_and_keys(b);
    if (!recompute.core_attn) b.add(T * Hq * D, a), b.add(T * Hq, c);
  }
  std::int64_t attention_forward() const {
    Bytes held, entering, core, leaving;
    if (recompute.layernorm) b_norm(held);
    enter(entering);
    entering.sum += held.sum;
    if (recompute.layernorm) queries_and_keys(held);
    if (recompute.core_attn) held.add(T * Hq * D, a), held.add(T * Hq, c);
    keys(core);
    row_parallel_forward(leaving);
    return std::max(entering.sum, held.sum + Bytes::most({core, leaving}));
  }
  // lasting: what weight gradients need.
  std::int64_t attention_backward(Bytes& lasting) const {
    Bytes b, core, leaving;
    if (recompute.layernorm) queries_and_keys(b);
    if (recompute.core_attn) lasting.add(T * Hq * D, a), b.add(T * Hq, c);
    b.add(T * Hq * D, a);  // d_o
    if (sequence() || shape.delayed) lasting.add(T * H, a);  // dy of all, or as it was
    lasting.add(T * qkv_columns(), a);                       // d_qkv
    queries_and_keys(b);                                     // dq, dk
    keys(core);
    key_gradients(core);
    if (a != c) core.add(T * Hq * D, c);  // dq is summed over blocks of keys
    if (!shape.delayed) enter(leaving);
    leave(leaving);
    return b.sum + Bytes::most({core, leaving});
  }

  // Gate-up and activation of a dense MLP.
  void mlp(Bytes& b) const {
    b.add(T * 2 * F, a);
    b.add(T * F, a);
  }
  std::int64_t mlp_forward() const {
    Bytes held, entering, leaving;
    if (recompute.layernorm) b_norm(held);
    if (recompute.mlp) mlp(held);
    enter(entering);
    row_parallel_forward(leaving);
    return held.sum + Bytes::most({entering, leaving});
  }
  std::int64_t mlp_backward(Bytes& lasting) const {
    Bytes b, leaving, entering;
    if (recompute.mlp) mlp(lasting), enter(entering);
    if (sequence() || shape.delayed) lasting.add(T * H, a);
    b.add(T * F, a);  // d_act; d_gate_up takes gate_up's place
    if (!shape.delayed) enter(leaving);
    leave(leaving);
    return std::max(entering.sum, b.sum + leaving.sum);
  }

  void routing(Bytes& b) const {
    b.add(t * E, c);       // probs
    b.add(R, DType::i32);  // expert
    b.add(R, c);           // weight
    b.add(t, c);           // log_sum_exp
    b.add(S * E, DType::i64);
    b.add(R, DType::i32);  // source
    b.add(R, DType::i32);  // position
    b.add(E + 1, DType::i64);
    if (alone()) return;
    const std::int64_t ep = shape.mesh.ep, etp = shape.mesh.etp;
    b.add(ep * E, DType::i64);
    b.add(etp * (E + ep), DType::i64);
    b.add(ep, DType::i64);
  }
  // At the experts, of a layer that runs in one round.
  void expert_rows(Bytes& b) const {
    if (!alone()) {
      b.add(shape.mesh.ep, DType::i64);
      b.add(shape.mesh.ep, DType::i64);
      b.add(shape.mesh.etp, DType::i64);
      b.add(E / shape.mesh.ep + 1, DType::i64);
      b.add(N, DType::i32);
      b.add(N, DType::i32);
    }
    b.add(N, c);  // row_weight
    b.add(N * H, a);
    b.add(N * 2 * Fe, a);
  }
  void expert_act(Bytes& b) const { b.add(N * Fe, a); }
  std::int64_t moe_forward() const {
    Bytes held, there, back;
    if (recompute.layernorm) b_norm(held);
    if (recompute.moe) routing(held), expert_rows(held);
    if (recompute.moe || recompute.moe_act) expert_act(held);
    held.add(R * H, a);  // the choices' results
    dispatch(there);
    if (!alone()) back.add(N * H, a);
    combine(back);
    return held.sum + Bytes::most({there, back});
  }
  std::int64_t moe_backward(Bytes& lasting) const {
    Bytes b, there, back;
    if (recompute.moe) routing(lasting), expert_rows(lasting);
    if (recompute.moe || recompute.moe_act) expert_act(lasting);
    b.add(R * H, a);  // d_choices
    b.add(R, c);      // d_weights
    if (!alone() || shape.delayed) lasting.add(N * H, a);  // d_out
    expert_act(there);                                     // d_act; d_gate_up takes gate_up's place
    if (!alone()) there.add(N, c);
    back = there;
    dispatch(there);
    if (!alone() && shape.delayed) back.add(N * H, a);  // d_rows: d_out is needed yet
    combine(back);
    back.add(R, c);      // d_weight
    back.add(t * E, c);  // d_logits
    back.add(S * E, c);  // d_probs
    return b.sum + Bytes::most({there, back});
  }

  void b_norm(Bytes& b) const { b.add(t * H, a); }
  void layer_kept(Bytes& b, bool is_moe) const {
    for (int i = 0; i < (recompute.layernorm ? 1 : 3); ++i) b_norm(b);  // x_mid, norm1, norm2
    b.add(t, c);
    b.add(t, c);
    attention(b);
    if (is_moe && !recompute.moe) routing(b);
    if (!is_moe && !recompute.mlp) mlp(b);
  }
  void layer_routed(Bytes& b, bool is_moe) const {
    if (!is_moe || recompute.moe) return;
    expert_rows(b);
    if (!recompute.moe_act) expert_act(b);
  }
  std::int64_t layer_forward(bool is_moe) const { return std::max(attention_forward(), is_moe ? moe_forward() : mlp_forward()); }
  // Scratch memory; what lasts is scratch too where weight gradients come at once.
  std::int64_t layer_backward(Bytes& delayed, bool is_moe) const {
    Bytes norms, second_norm, block, attention;
    Bytes common;
    b_norm(common);  // d_norm
    if (recompute.layernorm) b_norm(norms), b_norm(second_norm);
    const std::int64_t first = is_moe ? moe_backward(block) : mlp_backward(block), second = attention_backward(attention);
    if (!shape.delayed) return common.sum + norms.sum + std::max(first + block.sum, second + attention.sum);
    delayed.sum += norms.sum + second_norm.sum + block.sum + attention.sum;
    return common.sum + std::max(first, second);
  }
  std::int64_t head() const {
    Bytes b, sums, part;
    b_norm(b);  // the final norm's output
    const std::int64_t parts = sequence() ? shape.mesh.tp : 1, ranks = shape.mesh.tp;
    const std::int64_t rows = std::min(std::max<std::int64_t>(LmHead::chunk_tokens(m.vocab_size, ranks) / parts, 1), t) * parts;
    b.add(rows * ((m.vocab_size + ranks - 1) / ranks), c);
    b.add(rows, DType::i32);
    b.add(rows, c);
    if (sequence()) b.add(rows * H, a), part.add(rows * H, a);
    if (ranks > 1) sums.add(rows * 3, c), sums.add(ranks * rows * 3, c), sums.add(rows * 2, c);
    return b.sum + Bytes::most({sums, part});
  }
};

}  // namespace

ParameterMemory parameter_memory(const ModelConfig& config, DType dtype) {
  const std::int64_t n = count_parameters(config).total();
  return RankParameters{n, n, 0, n, 0}.memory(dtype);
}

ParameterMemory RankParameters::memory(DType dtype) const {
  const std::int64_t all = dense + experts, share = dense_share + expert_share, accumulator = std::int64_t(size_of(accumulator_of(dtype)));
  ParameterMemory memory;
  memory.values = all * std::int64_t(size_of(dtype));
  memory.gradients = all * accumulator;
  memory.master = dtype == accumulator_of(dtype) ? 0 : share * accumulator;
  memory.moments = 2 * share * accumulator;
  return memory;
}

// The model's own description of its parameters, on a mesh that says where the rank stands but has no communicators.
RankParameters rank_parameters(const ModelConfig& config, const MeshShape& shape, const PipelineLayout& stages, int pp, int tp, std::int64_t bucket_numel) {
  Mesh mesh;
  mesh.shape = shape;
  mesh.position = position_of(shape, dense_rank(shape, tp, 0, 0, pp));
  const ModelParallel parallel(mesh, config);
  const Device device;
  ParameterSet set(device, DType::f32);
  for (std::size_t v = std::size_t(pp); v < stages.size(); v += std::size_t(shape.pp)) Qwen3Model(config, device, set, parallel, stages[v]);
  for (Parameter& p : set.parameters())  // without communicators a tied embedding does not know that it has a bucket of its own
    if (config.tie_word_embeddings && shape.pp > 1 && p.name == "embed_tokens") p.uneven = true;
  set.lay_out({shape.dp * shape.cp, 0, shape.edp(), 0, bucket_numel});
  RankParameters rank;
  rank.parameters = set.numel();
  for (const Bucket& b : set.buckets()) {
    (b.grid == Grid::dense ? rank.dense : rank.experts) += b.end - b.begin;
    (b.grid == Grid::dense ? rank.dense_share : rank.expert_share) += b.share_numel();
  }
  return rank;
}

ActivationShape whole_model(const ModelConfig& config, std::int64_t tokens, std::int64_t sequences) {
  return {tokens, sequences, {0, config.num_hidden_layers, true, true}};
}

ActivationMemory activation_memory(const ModelConfig& config, const RecomputeSettings& recompute, DType dtype, const ActivationShape& shape) {
  const Count count(config, recompute, dtype, shape);
  const StageLayers& stage = shape.stage;
  const bool full = recompute.granularity == RecomputeSettings::Granularity::full, uniform = recompute.method == RecomputeSettings::Method::uniform;
  const std::int64_t chunk = full && uniform ? recompute.num_layers : 1;
  ActivationMemory memory;
  Bytes kept, routed, delayed;
  if (stage.embedding) count.b_norm(kept);  // its output
  for (std::int64_t begin = stage.begin; begin < stage.end; begin += chunk) {
    const bool recomputed = full && (uniform || begin - stage.begin < recompute.num_layers);
    const std::int64_t end = std::min(begin + chunk, stage.end);
    Bytes again;
    if (stage.head || end < stage.end) count.b_norm(kept);  // the chunk's output, unless it is sent
    for (std::int64_t i = begin; i < end; ++i) {
      const bool is_moe = config.is_moe_layer(i);
      if (i > begin) count.b_norm(again);
      count.layer_kept(recomputed ? again : kept, is_moe);
      count.layer_routed(recomputed ? again : routed, is_moe);
      memory.scratch = std::max({memory.scratch, count.layer_forward(is_moe), count.layer_backward(delayed, is_moe)});
    }
    memory.transient = std::max(memory.transient, again.sum);
    if (shape.delayed) delayed.sum += again.sum;
  }
  if (stage.head) {
    kept.add(count.t, count.c);  // the final norm's
    count.b_norm(kept);          // the head's gradient
    kept.add(count.t, count.c);  // the losses
    memory.scratch = std::max(memory.scratch, count.head());
  }
  memory.kept = kept.sum;
  memory.delayed = delayed.sum;
  memory.routed = routed.sum;
  return memory;
}

}  // namespace af
