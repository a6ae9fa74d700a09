#include "models/qwen3.h"

#include <algorithm>

#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"

namespace af {
namespace {

Parameter* add_head(const ModelConfig& c, ParameterSet& set, Parameter* embedding) {
  return c.tie_word_embeddings ? embedding : set.add(whole_parameter("lm_head", "lm_head.weight", {c.vocab_size, c.hidden_size}));
}

std::deque<DecoderLayer> make_layers(const ModelConfig& c, ParameterSet& set) {
  std::deque<DecoderLayer> layers;
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) layers.emplace_back(c, i, set);
  return layers;
}

}  // namespace

Qwen3Model::Saved::Saved(const Device& device, std::int64_t num_layers)
    : keep(device, "saved activations"), routed(device, "routed activations"), layers(std::size_t(num_layers)) {
  chunk_inputs.reserve(std::size_t(num_layers));
}

void Qwen3Model::Saved::reset() {
  std::fill(layers.begin(), layers.end(), DecoderLayer::Saved{});
  chunk_inputs.clear();
  last = last_rstd = d_norm = token_loss = {};
  keep.reset();
  routed.reset();
}

Qwen3Model::Qwen3Model(const ModelConfig& c, const Device& device, ParameterSet& set)
    : config_(c),
      set_(set),
      embedding_(set.add(whole_parameter("embed_tokens", "model.embed_tokens.weight", {c.vocab_size, c.hidden_size}))),
      layers_(make_layers(c, set)),
      norm_(set.add(norm_parameter("norm", "model.norm.weight", c.hidden_size))),
      head_(add_head(c, set, embedding_)),
      transient_(device, "transient activations"),
      transient_saved_(std::size_t(c.num_hidden_layers)),
      device_(device) {
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) statistics_.emplace_back(c.is_moe_layer(i) ? c.num_experts : 0);
}

void Qwen3Model::set_rope(const Context& context, const RopeSettings& rope, std::int64_t positions) {
  config_.rope = rope;
  config_.max_position_embeddings = std::max(config_.max_position_embeddings, positions);
  DType accumulator = accumulator_of(set_.dtype());
  Shape shape = {positions, config_.head_dim / 2};
  std::size_t bytes = (std::size_t(shape.numel()) * size_of(accumulator) + 63) / 64 * 64;
  rope_buffer_ = Buffer(device_, 2 * bytes);
  rope_.cos = Tensor(rope_buffer_.data(), accumulator, shape);
  rope_.sin = Tensor(static_cast<char*>(rope_buffer_.data()) + bytes, accumulator, shape);
  rope_tables(context, rope, rope_.cos, rope_.sin);
  transient_ = Arena(device_, transient_.name());
}

// Which layers keep only their input and are computed again before their backward.
const std::vector<Qwen3Model::Chunk>& Qwen3Model::chunks(const RecomputeSettings& r) {
  if (!chunks_.empty() && r.granularity == chunks_of_.granularity && r.method == chunks_of_.method && r.num_layers == chunks_of_.num_layers) return chunks_;
  chunks_.clear();
  chunks_of_ = r;
  std::int64_t layers = config_.num_hidden_layers;
  bool full = r.granularity == RecomputeSettings::Granularity::full;
  std::int64_t step = full && r.method == RecomputeSettings::Method::uniform ? std::max<std::int64_t>(r.num_layers, 1) : 1;
  for (std::int64_t begin = 0; begin < layers; begin += step) {
    bool recompute = full && (r.method == RecomputeSettings::Method::uniform || begin < r.num_layers);
    chunks_.push_back({begin, std::min(begin + step, layers), recompute});
  }
  return chunks_;
}

Pass Qwen3Model::transient_pass(const Pass& pass, Mode mode) {
  return {pass.context, pass.batch, transient_, transient_, mode, pass.recompute, pass.balance, pass.micro_batches};
}

void Qwen3Model::forward_layers(const Pass& pass, const Chunk& chunk, Tensor x, Saved& saved, const Tensor& y) {
  for (std::int64_t i = chunk.begin; i < chunk.end; ++i) {
    Tensor out = i + 1 == chunk.end ? y : pass.keep.tensor(x.shape, x.dtype);
    layers_[i].forward(pass, rope_, x, statistics_[i], saved.layers[i], out);
    x = out;
  }
}

void Qwen3Model::forward(const Pass& pass, double loss_scale, Saved& saved) {
  const Context& c = pass.context;
  std::int64_t tokens = pass.batch.tokens.numel();
  DType dtype = set_.dtype(), accumulator = accumulator_of(dtype);
  Tensor x = saved.keep.tensor({tokens, config_.hidden_size}, dtype);
  embedding(c, embedding_->value, pass.batch.tokens, x);
  for (const Chunk& chunk : chunks(pass.recompute)) {
    Tensor y = saved.keep.tensor(x.shape, dtype);
    saved.chunk_inputs.push_back(x);
    if (chunk.recompute) {
      Arena::Scope scope(transient_);
      forward_layers(transient_pass(pass, Mode::train), chunk, x, saved, y);
    } else {
      forward_layers(pass, chunk, x, saved, y);
    }
    x = y;
  }
  saved.last = x;
  saved.last_rstd = saved.keep.tensor({tokens}, accumulator);
  saved.d_norm = saved.keep.tensor(x.shape, dtype);
  saved.token_loss = saved.keep.tensor({tokens}, accumulator);
  Arena::Scope scope(c.scratch);
  Tensor normed = c.scratch.tensor(x.shape, dtype);
  rms_norm(c, x, norm_->value, config_.rms_norm_eps, normed, saved.last_rstd);
  head_.forward(c, normed, pass.batch.targets, loss_scale, saved.token_loss, saved.d_norm);
}

void Qwen3Model::backward(const Pass& pass, Saved& saved) {
  const Context& c = pass.context;
  Arena::Scope scope(c.scratch);
  Tensor d = c.scratch.tensor(saved.last.shape, saved.last.dtype);
  rms_norm_backward(c, saved.d_norm, saved.last, norm_->value, saved.last_rstd, d, Accumulate::no, norm_->gradient);
  const std::vector<Chunk>& all = chunks(pass.recompute);
  for (std::size_t n = all.size(); n-- > 0;) {
    const Chunk& chunk = all[n];
    Arena::Scope transient_scope(transient_);
    if (chunk.recompute) forward_layers(transient_pass(pass, Mode::recompute), chunk, saved.chunk_inputs[n], saved, {});
    for (std::int64_t i = chunk.end; i-- > chunk.begin;) layers_[i].backward(pass, rope_, statistics_[i], saved.layers[i], d);
  }
  embedding_backward(c, d, pass.batch.tokens, embedding_->gradient);
}

void Qwen3Model::evaluate(const Pass& pass, const Tensor& token_loss, const Tensor& logits) {
  const Context& c = pass.context;
  Arena::Scope scope(c.scratch);
  Shape shape = {pass.batch.tokens.numel(), config_.hidden_size};
  Tensor x = c.scratch.tensor(shape, set_.dtype()), y = c.scratch.tensor(shape, set_.dtype());
  embedding(c, embedding_->value, pass.batch.tokens, x);
  for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    Arena::Scope transient_scope(transient_);
    layers_[i].forward(transient_pass(pass, Mode::evaluate), rope_, x, statistics_[i], transient_saved_[i], y);
    std::swap(x, y);
  }
  Tensor rstd = c.scratch.tensor({shape[0]}, accumulator_of(set_.dtype()));
  rms_norm(c, x, norm_->value, config_.rms_norm_eps, y, rstd);
  head_.forward(c, y, pass.batch.targets, 1, token_loss, {});
  if (!logits.empty()) head_.logits(c, y, logits);
}

std::size_t Qwen3Model::routed_bytes(std::int64_t tokens, const RecomputeSettings& recompute) const {
  std::size_t bytes = 0;
  bool full = recompute.granularity == RecomputeSettings::Granularity::full;
  for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    bool kept = !full || (recompute.method == RecomputeSettings::Method::block && i >= recompute.num_layers);
    if (kept && layers_[i].moe()) bytes += layers_[i].moe()->routed_bytes(tokens, set_.dtype(), recompute);
  }
  return bytes;
}

}  // namespace af
