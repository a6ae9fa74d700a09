#include "models/attention.h"

#include <cmath>

#include <fmt/format.h>

#include "core/ops/elementwise.h"
#include "models/kv_cache.h"

namespace af {
namespace {

Parameter qkv_parameter(const ModelConfig& c, const ModelParallel& parallel, std::int64_t layer) {
  std::string prefix = fmt::format("model.layers.{}.self_attn.", layer);
  std::int64_t d = c.head_dim;
  Range q = part_of(c.num_attention_heads, parallel.mesh.shape.tp, parallel.mesh.position.tp), k = parallel.key_heads(c);
  Range q_rows{q.begin * d, q.end * d}, k_rows{k.begin * d, k.end * d};
  Parameter p = stacked_parameter(fmt::format("layers.{}.attention.qkv", layer),
                                  {{prefix + "q_proj.weight", c.num_attention_heads * d, q_rows},
                                   {prefix + "k_proj.weight", c.num_key_value_heads * d, k_rows},
                                   {prefix + "v_proj.weight", c.num_key_value_heads * d, k_rows}},
                                  c.hidden_size);
  if (parallel.key_replicas.size() > 1) p.replicated.push_back({q_rows.size() * c.hidden_size, p.numel(), parallel.key_replicas, Gradients::partial});
  return p;
}

Parameter o_parameter(const ModelConfig& c, const ModelParallel& parallel, std::int64_t layer) {
  Range q = part_of(c.num_attention_heads, parallel.mesh.shape.tp, parallel.mesh.position.tp);
  return column_parameter(fmt::format("layers.{}.attention.o", layer), fmt::format("model.layers.{}.self_attn.o_proj.weight", layer),
                          {c.hidden_size, c.num_attention_heads * c.head_dim}, {q.begin * c.head_dim, q.end * c.head_dim});
}

// Every rank applies it to its own heads.
Parameter head_norm_parameter(const ModelConfig& c, const ModelParallel& parallel, std::int64_t layer, const char* name) {
  Parameter p = norm_parameter(fmt::format("layers.{}.attention.{}", layer, name), fmt::format("model.layers.{}.self_attn.{}.weight", layer, name), c.head_dim);
  parallel.replicate_over_tp(p, Gradients::partial);
  return p;
}

}  // namespace

Attention::Attention(const ModelConfig& c, const ModelParallel& parallel, std::int64_t layer, ParameterSet& set)
    : layer_(layer),
      query_heads_(c.num_attention_heads / parallel.mesh.shape.tp),
      key_heads_(parallel.key_heads(c).size()),
      head_dim_(c.head_dim),
      eps_(c.rms_norm_eps),
      cp_(parallel.mesh.cp),
      qkv_(set.add(qkv_parameter(c, parallel, layer)), parallel.tensor),
      o_(set.add(o_parameter(c, parallel, layer)), parallel.tensor),
      q_norm_(set.add(head_norm_parameter(c, parallel, layer, "q_norm"))),
      k_norm_(set.add(head_norm_parameter(c, parallel, layer, "k_norm"))) {}

Tensor Attention::heads(const Tensor& qkv, std::int64_t begin, std::int64_t count) const {
  return qkv.slice_cols(begin * head_dim_, (begin + count) * head_dim_).view({qkv.rows(), count, head_dim_});
}

HeadNormRope Attention::norm_rope(const Pass& pass, const RopeTables& rope, const Parameter& norm) const {
  return {norm.value, rope.cos, rope.sin, pass.batch.positions, eps_};
}

// q = rope(norm(q)), k = rope(norm(k)), allocated in pass.keep.
void Attention::queries_and_keys(const Pass& pass, const RopeTables& rope, Saved& saved) const {
  std::int64_t tokens = saved.qkv.rows();
  DType dtype = saved.qkv.dtype;
  saved.q = pass.keep.tensor({tokens, query_heads_, head_dim_}, dtype);
  saved.k = pass.keep.tensor({tokens, key_heads_, head_dim_}, dtype);
  head_norm_rope(pass.context, heads(saved.qkv, 0, query_heads_), norm_rope(pass, rope, *q_norm_), saved.q, saved.q_rstd);
  head_norm_rope(pass.context, heads(saved.qkv, query_heads_, key_heads_), norm_rope(pass, rope, *k_norm_), saved.k, saved.k_rstd);
}

void Attention::remember(const Pass& pass, const Saved& saved) const {
  const Tensor keys = pass.cache->keys(layer_), vals = pass.cache->values(layer_);
  for (const AttentionSegment& d : pass.batch.documents) {
    const std::int64_t begin = d.k_end - (d.q_end - d.q_begin);
    convert(pass.context, saved.k.slice_rows(d.q_begin, d.q_end), keys.slice_rows(begin, d.k_end));
    convert(pass.context, values(saved).slice_rows(d.q_begin, d.q_end), vals.slice_rows(begin, d.k_end));
  }
}

void Attention::core(const Pass& pass, const Saved& saved) const {
  const Context& c = pass.context;
  double scale = 1 / std::sqrt(double(head_dim_));
  Tensor o = saved.o.view({saved.o.rows(), query_heads_, head_dim_});
  if (pass.cache) {
    remember(pass, saved);
    return attention_forward(c, saved.q, pass.cache->keys(layer_), pass.cache->values(layer_), pass.batch.documents, scale, o, saved.lse);
  }
  if (!pass.batch.context) return attention_forward(c, saved.q, saved.k, values(saved), pass.batch.documents, scale, o, saved.lse);
  Arena::Scope scope(c.scratch);
  KeyExchange keys(c, cp_, *pass.batch.context, saved.k), vals(c, cp_, *pass.batch.context, values(saved));
  Tensor k = keys.wait();
  attention_forward(c, saved.q, k, vals.wait(), pass.batch.documents, scale, o, saved.lse);
}

void Attention::core_backward(const Pass& pass, const Saved& saved, const Tensor& d_o, const Tensor& dq, const Tensor& dk, const Tensor& dv) const {
  const Context& c = pass.context;
  double scale = 1 / std::sqrt(double(head_dim_));
  Tensor o = saved.o.view({saved.o.rows(), query_heads_, head_dim_});
  if (!pass.batch.context)
    return attention_backward(c, d_o, saved.q, saved.k, values(saved), o, saved.lse, pass.batch.documents, scale, dq, dk, dv);
  Arena::Scope scope(c.scratch);
  const ContextPlan& plan = *pass.batch.context;
  KeyExchange keys(c, cp_, plan, saved.k), vals(c, cp_, plan, values(saved));
  Tensor k = keys.wait(), v = vals.wait();
  Tensor d_keys = c.scratch.tensor(k.shape, k.dtype), d_values = c.scratch.tensor(v.shape, v.dtype);
  attention_backward(c, d_o, saved.q, k, v, o, saved.lse, pass.batch.documents, scale, dq, d_keys, d_values);
  KeyGradientExchange home_keys(c, cp_, plan, d_keys), home_values(c, cp_, plan, d_values);
  home_keys.wait(dk);
  home_values.wait(dv);
}

void Attention::forward(const Pass& pass, const RopeTables& rope, const Tensor& x_local, Saved& saved, const Tensor& y) const {
  const Context& c = pass.context;
  std::int64_t tokens = pass.batch.positions.numel();
  DType accumulator = accumulator_of(x_local.dtype);
  Pass scratch = pass.in_scratch(pass.mode);
  const Pass& norms = pass.recompute.layernorm ? scratch : pass;
  Arena& core_memory = pass.recompute.core_attn ? c.scratch : pass.keep;
  saved.qkv = pass.keep.tensor({tokens, (query_heads_ + 2 * key_heads_) * head_dim_}, x_local.dtype);
  saved.q_rstd = pass.keep.tensor({tokens, query_heads_}, accumulator);
  saved.k_rstd = pass.keep.tensor({tokens, key_heads_}, accumulator);
  Arena::Scope scope(c.scratch);
  {
    Arena::Scope entering(c.scratch);
    qkv_.forward(c, qkv_.tensor_parallel().enter(c.scratch, x_local), saved.qkv);
  }
  queries_and_keys(norms, rope, saved);
  saved.o = core_memory.tensor({tokens, query_heads_ * head_dim_}, x_local.dtype);
  saved.lse = core_memory.tensor({tokens, query_heads_}, accumulator);
  core(pass, saved);
  o_.forward_add(c, saved.o, y);
  if (pass.recompute.layernorm) saved.q = saved.k = {};
  if (pass.recompute.core_attn) saved.o = saved.lse = {};
}

void Attention::backward(const Pass& pass, const RopeTables& rope, const Tensor& dy, const Tensor& x_local, const Saved& kept, const Tensor& dx) const {
  const Context& c = pass.context;
  std::int64_t tokens = kept.qkv.rows();
  DType dtype = x_local.dtype;
  Arena::Scope scope(c.scratch);
  Saved saved = kept;
  if (saved.q.empty()) queries_and_keys(pass.in_scratch(Mode::recompute), rope, saved);
  if (saved.o.empty()) {
    saved.o = pass.lasting().tensor({tokens, query_heads_ * head_dim_}, dtype);
    saved.lse = c.scratch.tensor({tokens, query_heads_}, accumulator_of(dtype));
    core(pass, saved);
  }
  Tensor d_o = c.scratch.tensor(saved.o.shape, dtype);
  o_.backward(c, pass.lasting(), dy, saved.o, d_o, pass.delayed);

  Tensor d_qkv = pass.lasting().tensor(saved.qkv.shape, dtype);
  Tensor dq = c.scratch.tensor(saved.q.shape, dtype), dk = c.scratch.tensor(saved.k.shape, dtype);
  Tensor dv = heads(d_qkv, query_heads_ + key_heads_, key_heads_);
  core_backward(pass, saved, d_o.view({tokens, query_heads_, head_dim_}), dq, dk, dv);
  head_norm_rope_backward(c, dq, heads(saved.qkv, 0, query_heads_), norm_rope(pass, rope, *q_norm_), saved.q_rstd, heads(d_qkv, 0, query_heads_),
                          q_norm_->gradient);
  head_norm_rope_backward(c, dk, heads(saved.qkv, query_heads_, key_heads_), norm_rope(pass, rope, *k_norm_), saved.k_rstd,
                          heads(d_qkv, query_heads_, key_heads_), k_norm_->gradient);
  qkv_.backward(c, d_qkv, x_local, dx, pass.delayed);
}

}  // namespace af
