#include "models/decoder_layer.h"

#include <algorithm>

#include <fmt/format.h>

#include "core/ops/elementwise.h"

namespace af {

namespace {

Parameter layer_norm(const ModelConfig& c, const ModelParallel& parallel, std::int64_t layer, const char* name, const char* published) {
  Parameter p = norm_parameter(fmt::format("layers.{}.{}", layer, name), fmt::format("model.layers.{}.{}.weight", layer, published), c.hidden_size);
  parallel.replicate_over_tp(p, parallel.tensor.sequence_parallel() ? Gradients::partial : Gradients::equal);
  return p;
}

}  // namespace

DecoderLayer::DecoderLayer(const ModelConfig& c, const ModelParallel& parallel, std::int64_t layer, ParameterSet& set)
    : eps_(c.rms_norm_eps),
      input_norm_(set.add(layer_norm(c, parallel, layer, "input_norm", "input_layernorm"))),
      attention_(c, parallel, layer, set),
      post_attention_norm_(set.add(layer_norm(c, parallel, layer, "post_attention_norm", "post_attention_layernorm"))) {
  if (c.is_moe_layer(layer)) moe_.emplace(c, parallel, layer, set);
  else mlp_.emplace(c, parallel, layer, set);
  for (std::size_t i = set.parameters().size(); i-- > 0 && &set.parameters()[i] != input_norm_;) parameters_.push_back(&set.parameters()[i]);
  parameters_.push_back(input_norm_);
  std::reverse(parameters_.begin(), parameters_.end());
}

void DecoderLayer::forward(const Pass& pass, const RopeTables& rope, const Tensor& x, RouterStatistics& statistics, Saved& saved, const Tensor& y) const {
  const Context& c = pass.context;
  DType accumulator = accumulator_of(x.dtype);
  saved.x = x;
  saved.x_mid = pass.keep.tensor(x.shape, x.dtype);
  saved.norm1_rstd = pass.keep.tensor({x.rows()}, accumulator);
  saved.norm2_rstd = pass.keep.tensor({x.rows()}, accumulator);
  Arena& norms = pass.recompute.layernorm ? c.scratch : pass.keep;
  {
    Arena::Scope scope(c.scratch);
    saved.norm1 = norms.tensor(x.shape, x.dtype);
    rms_norm(c, x, input_norm_->value, eps_, saved.norm1, saved.norm1_rstd);
    convert(c, x, saved.x_mid);
    attention_.forward(pass, rope, saved.norm1, saved.attention, saved.x_mid);
  }
  Arena::Scope scope(c.scratch);
  saved.norm2 = norms.tensor(x.shape, x.dtype);
  rms_norm(c, saved.x_mid, post_attention_norm_->value, eps_, saved.norm2, saved.norm2_rstd);
  if (!y.empty()) convert(c, saved.x_mid, y);
  if (moe_) moe_->forward(pass, saved.norm2, statistics, saved.moe, y);
  else mlp_->forward(pass, saved.norm2, saved.mlp, y);
  if (pass.recompute.layernorm) saved.norm1 = saved.norm2 = {};
}

void DecoderLayer::backward(const Pass& pass, const RopeTables& rope, const RouterStatistics& statistics, const Saved& saved, const Tensor& d) const {
  const Context& c = pass.context;
  Arena::Scope scope(c.scratch);
  Tensor d_norm = c.scratch.tensor(d.shape, d.dtype);
  Tensor norm = saved.norm2;
  if (norm.empty()) {
    norm = pass.lasting().tensor(d.shape, d.dtype);
    rms_norm(c, saved.x_mid, post_attention_norm_->value, eps_, norm, saved.norm2_rstd);
  }
  if (moe_) moe_->backward(pass, d, norm, statistics, saved.moe, d_norm);
  else mlp_->backward(pass, d, norm, saved.mlp, d_norm);
  rms_norm_backward(c, d_norm, saved.x_mid, post_attention_norm_->value, saved.norm2_rstd, d, Accumulate::yes, post_attention_norm_->gradient);

  if (saved.norm1.empty()) {
    if (pass.delayed) norm = pass.lasting().tensor(d.shape, d.dtype);  // else the second norm's memory: it has served
    rms_norm(c, saved.x, input_norm_->value, eps_, norm, saved.norm1_rstd);
  } else {
    norm = saved.norm1;
  }
  attention_.backward(pass, rope, d, norm, saved.attention, d_norm);
  rms_norm_backward(c, d_norm, saved.x, input_norm_->value, saved.norm1_rstd, d, Accumulate::yes, input_norm_->gradient);
}

}  // namespace af
