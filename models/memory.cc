#include "models/memory.h"

#include <algorithm>

#include "models/flops.h"
#include "parallel/lm_head.h"

namespace af {
namespace {

// Adds up tensors as an Arena lays them out: each begins on a 64-byte line.
struct Bytes {
  std::int64_t sum = 0;
  void add(std::int64_t elements, DType dtype) { sum += (elements * std::int64_t(size_of(dtype)) + 63) / 64 * 64; }
};

// Letters as in pass.h: T, H, D, Hq, Hkv, F, E, k, R, S, V; a: activations, c: accumulators.
struct Count {
  const ModelConfig& m;
  const RecomputeSettings& recompute;
  DType a;
  std::int64_t T, S;
  DType c = accumulator_of(a);
  std::int64_t H = m.hidden_size, D = m.head_dim, Hq = m.num_attention_heads, Hkv = m.num_key_value_heads;
  std::int64_t E = m.num_experts, R = T * m.num_experts_per_tok;

  // Kept of attention (models/attention.cc).
  void queries_and_keys(Bytes& b) const {
    b.add(T * Hq * D, a);
    b.add(T * Hkv * D, a);
  }
  void attention_output(Bytes& b) const {
    b.add(T * Hq * D, a);
    b.add(T * Hq, c);
  }
  void attention(Bytes& b) const {
    b.add(T * m.qkv_rows(), a);
    b.add(T * Hq, c);
    b.add(T * Hkv, c);
    if (!recompute.layernorm) queries_and_keys(b);
    if (!recompute.core_attn) attention_output(b);
  }
  void attention_backward(Bytes& b) const {
    if (recompute.layernorm) queries_and_keys(b);
    if (recompute.core_attn) attention_output(b);
    b.add(T * Hq * D, a);              // d_o
    b.add(T * m.qkv_rows(), a);        // d_qkv
    queries_and_keys(b);               // dq, dk
    if (a != c) b.add(T * Hq * D, c);  // dq is summed over blocks of keys
  }

  // Gate-up and activation of a dense MLP.
  void mlp(Bytes& b) const {
    b.add(T * 2 * m.intermediate_size, a);
    b.add(T * m.intermediate_size, a);
  }
  void mlp_backward(Bytes& b) const {
    if (recompute.mlp) mlp(b);
    b.add(T * m.intermediate_size, a);  // d_act; d_gate_up takes gate_up's place
  }

  void routing(Bytes& b) const {
    b.add(T * E, c);       // probs
    b.add(R, DType::i32);  // expert
    b.add(R, c);           // weight
    b.add(T, c);           // log_sum_exp
    b.add(S * E, DType::i64);
    b.add(R, DType::i32);  // source
    b.add(R, DType::i32);  // position
    b.add(E + 1, DType::i64);
  }
  void expert_rows(Bytes& b) const {
    b.add(R, c);  // row_weight
    b.add(R * H, a);
    b.add(R * 2 * m.moe_intermediate_size, a);
  }
  void expert_act(Bytes& b) const { b.add(R * m.moe_intermediate_size, a); }
  void moe_backward(Bytes& b) const {
    if (recompute.moe) {
      routing(b);
      expert_rows(b);
      expert_act(b);
    } else if (recompute.moe_act) {
      expert_act(b);
    }
    b.add(R * H, a);  // d_out, later d_x
    expert_act(b);    // d_act; d_gate_up takes gate_up's place
    b.add(R, c);      // d_row_weight
    b.add(R, c);      // d_weight
    b.add(T * E, c);  // d_logits
    b.add(S * E, c);  // d_probs
  }

  void layer_kept(Bytes& b, bool is_moe) const {
    for (int i = 0; i < (recompute.layernorm ? 1 : 3); ++i) b.add(T * H, a);  // x_mid, norm1, norm2
    b.add(T, c);
    b.add(T, c);
    attention(b);
    if (is_moe && !recompute.moe) routing(b);
    if (!is_moe && !recompute.mlp) mlp(b);
  }
  void layer_routed(Bytes& b, bool is_moe) const {
    if (!is_moe || recompute.moe) return;
    expert_rows(b);
    if (!recompute.moe_act) expert_act(b);
  }
  std::int64_t layer_backward(bool is_moe) const {
    Bytes common, first, second;
    common.add(T * H, a);  // d
    common.add(T * H, a);  // d_norm
    if (recompute.layernorm) common.add(T * H, a);
    if (is_moe)
      moe_backward(first);
    else
      mlp_backward(first);
    attention_backward(second);
    return common.sum + std::max(first.sum, second.sum);
  }
  std::int64_t head() const {
    Bytes b;
    b.add(T * H, a);  // the final norm's output
    b.add(std::min(LmHead::chunk_tokens(m.vocab_size), T) * m.vocab_size, c);
    return b.sum;
  }
};

}  // namespace

ParameterMemory parameter_memory(const ModelConfig& config, DType dtype) {
  const std::int64_t n = count_parameters(config).total(), accumulator = std::int64_t(size_of(accumulator_of(dtype)));
  ParameterMemory memory;
  memory.values = n * std::int64_t(size_of(dtype));
  memory.gradients = n * accumulator;
  memory.master = dtype == accumulator_of(dtype) ? 0 : n * accumulator;
  memory.moments = 2 * n * accumulator;
  return memory;
}

ActivationMemory activation_memory(const ModelConfig& config, const RecomputeSettings& recompute, DType dtype, std::int64_t tokens,
                                   std::int64_t sequences) {
  const Count count{config, recompute, dtype, tokens, sequences};
  const bool full = recompute.granularity == RecomputeSettings::Granularity::full, uniform = recompute.method == RecomputeSettings::Method::uniform;
  const std::int64_t layers = config.num_hidden_layers, chunk = full && uniform ? recompute.num_layers : 1;
  ActivationMemory memory;
  Bytes kept, routed;
  kept.add(tokens * config.hidden_size, dtype);  // the embedding's output
  for (std::int64_t begin = 0; begin < layers; begin += chunk) {
    const bool recomputed = full && (uniform || begin < recompute.num_layers);
    Bytes again;
    kept.add(tokens * config.hidden_size, dtype);  // the chunk's output
    for (std::int64_t i = begin; i < std::min(begin + chunk, layers); ++i) {
      const bool is_moe = config.is_moe_layer(i);
      if (i > begin) again.add(tokens * config.hidden_size, dtype);
      count.layer_kept(recomputed ? again : kept, is_moe);
      count.layer_routed(recomputed ? again : routed, is_moe);
      memory.scratch = std::max(memory.scratch, count.layer_backward(is_moe));
    }
    memory.transient = std::max(memory.transient, again.sum);
  }
  kept.add(tokens, count.c);                     // the final norm's
  kept.add(tokens * config.hidden_size, dtype);  // the head's gradient
  kept.add(tokens, count.c);                     // the losses
  memory.kept = kept.sum;
  memory.routed = routed.sum;
  memory.scratch = std::max(memory.scratch, count.head());
  return memory;
}

}  // namespace af
