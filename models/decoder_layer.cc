#include "models/decoder_layer.h"

#include <fmt/format.h>

#include "core/ops/elementwise.h"

namespace af {

DecoderLayer::DecoderLayer(const ModelConfig& c, std::int64_t layer, ParameterSet& set)
    : eps_(c.rms_norm_eps),
      input_norm_(set.add(norm_parameter(fmt::format("layers.{}.input_norm", layer), fmt::format("model.layers.{}.input_layernorm.weight", layer), c.hidden_size))),
      attention_(c, layer, set),
      post_attention_norm_(set.add(norm_parameter(fmt::format("layers.{}.post_attention_norm", layer),
                                                  fmt::format("model.layers.{}.post_attention_layernorm.weight", layer), c.hidden_size))) {
  if (c.is_moe_layer(layer)) moe_.emplace(c, layer, set);
  else mlp_.emplace(c, layer, set);
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
    norm = c.scratch.tensor(d.shape, d.dtype);
    rms_norm(c, saved.x_mid, post_attention_norm_->value, eps_, norm, saved.norm2_rstd);
  }
  if (moe_) moe_->backward(pass, d, norm, statistics, saved.moe, d_norm);
  else mlp_->backward(pass, d, norm, saved.mlp, d_norm);
  rms_norm_backward(c, d_norm, saved.x_mid, post_attention_norm_->value, saved.norm2_rstd, d, Accumulate::yes, post_attention_norm_->gradient);

  if (saved.norm1.empty()) rms_norm(c, saved.x, input_norm_->value, eps_, norm, saved.norm1_rstd);  // the second norm's has served
  else norm = saved.norm1;
  attention_.backward(pass, rope, d, norm, saved.attention, d_norm);
  rms_norm_backward(c, d_norm, saved.x, input_norm_->value, saved.norm1_rstd, d, Accumulate::yes, input_norm_->gradient);
}

}  // namespace af
