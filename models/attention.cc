#include "models/attention.h"

#include <cmath>

#include <fmt/format.h>

namespace af {
namespace {

Parameter qkv_parameter(const ModelConfig& c, std::int64_t layer) {
  std::string prefix = fmt::format("model.layers.{}.self_attn.", layer);
  std::int64_t q_rows = c.num_attention_heads * c.head_dim, kv_rows = c.num_key_value_heads * c.head_dim;
  return stacked_parameter(fmt::format("layers.{}.attention.qkv", layer),
                           {{prefix + "q_proj.weight", q_rows}, {prefix + "k_proj.weight", kv_rows}, {prefix + "v_proj.weight", kv_rows}}, c.hidden_size);
}

}  // namespace

Attention::Attention(const ModelConfig& c, std::int64_t layer, ParameterSet& set)
    : query_heads_(c.num_attention_heads),
      key_heads_(c.num_key_value_heads),
      head_dim_(c.head_dim),
      eps_(c.rms_norm_eps),
      qkv_(set.add(qkv_parameter(c, layer))),
      o_(set.add(whole_parameter(fmt::format("layers.{}.attention.o", layer), fmt::format("model.layers.{}.self_attn.o_proj.weight", layer),
                                 {c.hidden_size, c.num_attention_heads * c.head_dim}))),
      q_norm_(set.add(norm_parameter(fmt::format("layers.{}.attention.q_norm", layer), fmt::format("model.layers.{}.self_attn.q_norm.weight", layer), c.head_dim))),
      k_norm_(set.add(norm_parameter(fmt::format("layers.{}.attention.k_norm", layer), fmt::format("model.layers.{}.self_attn.k_norm.weight", layer), c.head_dim))) {}

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

void Attention::forward(const Pass& pass, const RopeTables& rope, const Tensor& x, Saved& saved, const Tensor& y) const {
  const Context& c = pass.context;
  std::int64_t tokens = x.rows();
  DType accumulator = accumulator_of(x.dtype);
  Pass scratch = pass.in_scratch(pass.mode);
  const Pass& norms = pass.recompute.layernorm ? scratch : pass;
  Arena& core = pass.recompute.core_attn ? c.scratch : pass.keep;
  saved.qkv = pass.keep.tensor({tokens, (query_heads_ + 2 * key_heads_) * head_dim_}, x.dtype);
  saved.q_rstd = pass.keep.tensor({tokens, query_heads_}, accumulator);
  saved.k_rstd = pass.keep.tensor({tokens, key_heads_}, accumulator);
  Arena::Scope scope(c.scratch);
  qkv_.forward(c, x, saved.qkv);
  queries_and_keys(norms, rope, saved);
  saved.o = core.tensor({tokens, query_heads_ * head_dim_}, x.dtype);
  saved.lse = core.tensor({tokens, query_heads_}, accumulator);
  attention_forward(c, saved.q, saved.k, heads(saved.qkv, query_heads_ + key_heads_, key_heads_), pass.batch.documents, 1 / std::sqrt(double(head_dim_)),
                    saved.o.view({tokens, query_heads_, head_dim_}), saved.lse);
  o_.forward(c, saved.o, y, Accumulate::yes);
  if (pass.recompute.layernorm) saved.q = saved.k = {};
  if (pass.recompute.core_attn) saved.o = saved.lse = {};
}

void Attention::backward(const Pass& pass, const RopeTables& rope, const Tensor& dy, const Tensor& x, const Saved& kept, const Tensor& dx) const {
  const Context& c = pass.context;
  std::int64_t tokens = x.rows();
  double scale = 1 / std::sqrt(double(head_dim_));
  Arena::Scope scope(c.scratch);
  Saved saved = kept;
  Tensor v = heads(saved.qkv, query_heads_ + key_heads_, key_heads_);
  if (saved.q.empty()) queries_and_keys(pass.in_scratch(Mode::recompute), rope, saved);
  if (saved.o.empty()) {
    saved.o = c.scratch.tensor({tokens, query_heads_ * head_dim_}, x.dtype);
    saved.lse = c.scratch.tensor({tokens, query_heads_}, accumulator_of(x.dtype));
    attention_forward(c, saved.q, saved.k, v, pass.batch.documents, scale, saved.o.view({tokens, query_heads_, head_dim_}), saved.lse);
  }
  Tensor d_o = c.scratch.tensor(saved.o.shape, x.dtype);
  o_.backward_input(c, dy, d_o);
  o_.backward_weight(c, dy, saved.o);

  Tensor d_qkv = c.scratch.tensor(saved.qkv.shape, x.dtype);
  Tensor dq = c.scratch.tensor(saved.q.shape, x.dtype), dk = c.scratch.tensor(saved.k.shape, x.dtype);
  Shape o_shape = {tokens, query_heads_, head_dim_};
  attention_backward(c, d_o.view(o_shape), saved.q, saved.k, v, saved.o.view(o_shape), saved.lse, pass.batch.documents, scale, dq, dk,
                     heads(d_qkv, query_heads_ + key_heads_, key_heads_));
  head_norm_rope_backward(c, dq, heads(saved.qkv, 0, query_heads_), norm_rope(pass, rope, *q_norm_), saved.q_rstd, heads(d_qkv, 0, query_heads_),
                          q_norm_->gradient);
  head_norm_rope_backward(c, dk, heads(saved.qkv, query_heads_, key_heads_), norm_rope(pass, rope, *k_norm_), saved.k_rstd,
                          heads(d_qkv, query_heads_, key_heads_), k_norm_->gradient);
  qkv_.backward_input(c, d_qkv, dx);
  qkv_.backward_weight(c, d_qkv, x);
}

}  // namespace af
