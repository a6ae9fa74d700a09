#include "models/qwen3.h"

#include <algorithm>

#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"

namespace af {
namespace {

Parameter vocabulary_parameter(const ModelConfig& c, const ModelParallel& parallel, const char* name, const char* published) {
  Parameter p = row_parameter(name, published, {c.vocab_size, c.hidden_size}, part_of(c.vocab_size, parallel.mesh.shape.tp, parallel.mesh.position.tp));
  p.uneven = c.vocab_size % parallel.mesh.shape.tp != 0;
  // Tied: the first stage has the embedding, the last the head, and both parts of the gradient.
  if (c.tie_word_embeddings && parallel.mesh.tied.size() > 1) p.replicated.push_back({0, p.numel(), parallel.mesh.tied, Gradients::partial});
  return p;
}

Parameter final_norm(const ModelConfig& c, const ModelParallel& parallel) {
  Parameter p = norm_parameter("norm", "model.norm.weight", c.hidden_size);
  parallel.replicate_over_tp(p, parallel.tensor.sequence_parallel() ? Gradients::partial : Gradients::equal);
  return p;
}

constexpr const char* kEmbedding = "embed_tokens";
constexpr const char* kPublishedEmbedding = "model.embed_tokens.weight";

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

Qwen3Model::Qwen3Model(const ModelConfig& c, const Device& device, ParameterSet& set, const ModelParallel& parallel)
    : Qwen3Model(c, device, set, parallel, StageLayers{0, c.num_hidden_layers, true, true}) {}

Qwen3Model::Qwen3Model(const ModelConfig& c, const Device& device, ParameterSet& set, const ModelParallel& parallel, const StageLayers& stage)
    : config_(c),
      set_(set),
      parallel_(parallel),
      stage_(stage),
      embedding_weight_(stage.embedding ? set.add(vocabulary_parameter(c, parallel, kEmbedding, kPublishedEmbedding)) : nullptr),
      transient_(device, "transient activations"),
      transient_saved_(std::size_t(stage.layers())),
      device_(device) {
  if (stage.embedding) embedding_.emplace(embedding_weight_, parallel.tensor);
  for (std::int64_t i = stage.begin; i < stage.end; ++i) layers_.emplace_back(c, parallel, i, set);
  if (stage.head) {
    norm_ = set.add(final_norm(c, parallel));
    bool tied = c.tie_word_embeddings;
    head_weight_ = tied && embedding_weight_ ? embedding_weight_
                   : tied                    ? set.add(vocabulary_parameter(c, parallel, kEmbedding, kPublishedEmbedding))
                                             : set.add(vocabulary_parameter(c, parallel, "lm_head", "lm_head.weight"));
    head_.emplace(head_weight_, c.vocab_size, parallel.tensor);
  }
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i)
    statistics_.emplace_back(c.is_moe_layer(i) && i >= stage.begin && i < stage.end ? c.num_experts : 0);
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

// Which layers keep only their input and are computed again before their backward. Method::block counts from the stage's first.
const std::vector<Qwen3Model::Chunk>& Qwen3Model::chunks(const RecomputeSettings& r) {
  if (!chunks_.empty() && r.granularity == chunks_of_.granularity && r.method == chunks_of_.method && r.num_layers == chunks_of_.num_layers) return chunks_;
  chunks_.clear();
  chunks_of_ = r;
  bool full = r.granularity == RecomputeSettings::Granularity::full;
  std::int64_t step = full && r.method == RecomputeSettings::Method::uniform ? std::max<std::int64_t>(r.num_layers, 1) : 1;
  for (std::int64_t begin = stage_.begin; begin < stage_.end; begin += step) {
    bool recompute = full && (r.method == RecomputeSettings::Method::uniform || begin - stage_.begin < r.num_layers);
    chunks_.push_back({begin, std::min(begin + step, stage_.end), recompute});
  }
  return chunks_;
}

void Qwen3Model::need(const Pass& pass, std::span<Parameter* const> parameters) const {
  if (pass.gatherer)
    for (const Parameter* p : parameters) pass.gatherer->need(*p);
}

void Qwen3Model::complete(const Pass& pass, std::span<Parameter* const> parameters) const {
  if (pass.reducer)
    for (std::size_t i = parameters.size(); i-- > 0;) pass.reducer->complete(*parameters[i]);
}

// Where weight gradients come last: in the order of the backward.
void Qwen3Model::complete_all(const Pass& pass) const {
  if (stage_.head) {
    complete(pass, {&norm_, 1});
    if (head_weight_ != embedding_weight_) complete(pass, {&head_weight_, 1});
  }
  for (auto layer = layers_.rbegin(); layer != layers_.rend(); ++layer) complete(pass, layer->parameters());
  if (stage_.embedding) complete(pass, {&embedding_weight_, 1});
}

// What a chunk of layers keeps that is computed again: until its backward, or where weight gradients are delayed until these.
Pass Qwen3Model::chunk_pass(const Pass& pass, Mode mode, bool delayed) {
  return delayed ? pass.with(pass.keep, pass.keep, mode) : pass.with(transient_, transient_, mode);
}

void Qwen3Model::forward_layers(const Pass& pass, const Chunk& chunk, Tensor x, Saved& saved, const Tensor& y) {
  for (std::int64_t i = chunk.begin; i < chunk.end; ++i) {
    Tensor out = i + 1 == chunk.end ? y : pass.keep.tensor(x.shape, x.dtype);
    need(pass, layer(i).parameters());
    layer(i).forward(pass, rope_, x, statistics(i), saved.layers[std::size_t(i - stage_.begin)], out);
    x = out;
  }
}

void Qwen3Model::forward(const Pass& pass, double loss_scale, Saved& saved, const Tensor& input, const Tensor& output) {
  const Context& c = pass.context;
  DType dtype = set_.dtype(), accumulator = accumulator_of(dtype);
  Shape shape = {local_tokens(pass.batch), config_.hidden_size};
  Tensor x = input;
  if (embedding_) {
    x = saved.keep.tensor(shape, dtype);
    need(pass, {&embedding_weight_, 1});
    embedding_->forward(c, pass.batch.tokens, x);
  }
  for (const Chunk& chunk : chunks(pass.recompute)) {
    Tensor y = !head_ && chunk.end == stage_.end ? output : saved.keep.tensor(shape, dtype);
    saved.chunk_inputs.push_back(x);
    if (chunk.recompute) {
      Arena::Scope scope(transient_);
      forward_layers(chunk_pass(pass, Mode::train, false), chunk, x, saved, y);
    } else {
      forward_layers(pass, chunk, x, saved, y);
    }
    x = y;
  }
  if (!head_) {
    if (stage_.layers() == 0) convert(c, x, output);
    return;
  }
  saved.last = x;
  saved.last_rstd = saved.keep.tensor({shape[0]}, accumulator);
  saved.d_norm = saved.keep.tensor(shape, dtype);
  saved.token_loss = saved.keep.tensor({shape[0]}, accumulator);
  Arena::Scope scope(c.scratch);
  Tensor normed = c.scratch.tensor(shape, dtype);
  need(pass, {&norm_, 1});
  need(pass, {&head_weight_, 1});
  rms_norm(c, x, norm_->value, config_.rms_norm_eps, normed, saved.last_rstd);
  head_->forward(c, normed, pass.batch.targets, loss_scale, saved.token_loss, saved.d_norm);
}

void Qwen3Model::backward(const Pass& pass, Saved& saved, const Tensor& d_stage) {
  const Context& c = pass.context;
  Pass quiet = pass;  // recomputation needs no values and completes nothing
  quiet.gatherer = nullptr;
  Pass done = pass;
  if (pass.delayed) done.reducer = nullptr;  // backward_weight() completes all
  Arena::Scope scope(c.scratch);
  Tensor d = d_stage.empty() ? c.scratch.tensor({local_tokens(pass.batch), config_.hidden_size}, set_.dtype()) : d_stage;
  if (head_) {
    rms_norm_backward(c, saved.d_norm, saved.last, norm_->value, saved.last_rstd, d, Accumulate::no, norm_->gradient);
    complete(done, {&norm_, 1});
    if (head_weight_ != embedding_weight_) complete(done, {&head_weight_, 1});
  }
  const std::vector<Chunk>& all = chunks(pass.recompute);
  for (std::size_t n = all.size(); n-- > 0;) {
    const Chunk& chunk = all[n];
    Arena::Scope transient_scope(transient_);
    if (chunk.recompute) forward_layers(chunk_pass(quiet, Mode::recompute, pass.delayed), chunk, saved.chunk_inputs[n], saved, {});
    for (std::int64_t i = chunk.end; i-- > chunk.begin;) {
      layer(i).backward(pass, rope_, statistics(i), saved.layers[std::size_t(i - stage_.begin)], d);
      complete(done, layer(i).parameters());
    }
  }
  if (embedding_) {
    embedding_->backward(c, d, pass.batch.tokens);
    complete(done, {&embedding_weight_, 1});
  }
}

void Qwen3Model::backward_weight(const Pass& pass, Saved& saved) {
  saved.delayed.run(pass.context);
  complete_all(pass);
}

Tensor Qwen3Model::evaluate_layers(const Pass& pass, Tensor x, Tensor other) {
  for (std::int64_t i = stage_.begin; i < stage_.end; ++i) {
    Arena::Scope transient_scope(transient_);
    layer(i).forward(chunk_pass(pass, Mode::evaluate, false), rope_, x, statistics(i), transient_saved_[std::size_t(i - stage_.begin)], other);
    std::swap(x, other);
  }
  return x;
}

void Qwen3Model::evaluate(const Pass& pass, const Tensor& token_loss, const Tensor& logits, const Tensor& input, const Tensor& output) {
  const Context& c = pass.context;
  Arena::Scope scope(c.scratch);
  Shape shape = {local_tokens(pass.batch), config_.hidden_size};
  Tensor first = c.scratch.tensor(shape, set_.dtype()), second = c.scratch.tensor(shape, set_.dtype());
  if (embedding_) embedding_->forward(c, pass.batch.tokens, first);
  else convert(c, input, first);
  Tensor x = evaluate_layers(pass, first, second), y = x.data == first.data ? second : first;
  if (!head_) return convert(c, x, output);
  Tensor rstd = c.scratch.tensor({shape[0]}, accumulator_of(set_.dtype()));
  rms_norm(c, x, norm_->value, config_.rms_norm_eps, y, rstd);
  head_->forward(c, y, pass.batch.targets, 1, token_loss, {});
  if (!logits.empty()) head_->logits(c, y, logits);
}

void Qwen3Model::logits_of(const Pass& pass, const Tensor& rows, const Tensor& logits) {
  AF_CHECK(embedding_ && head_, "logits of layers {}..{} alone", stage_.begin, stage_.end);
  const Context& c = pass.context;
  Arena::Scope scope(c.scratch);
  Shape shape = {local_tokens(pass.batch), config_.hidden_size}, few = {rows.numel(), config_.hidden_size};
  Tensor first = c.scratch.tensor(shape, set_.dtype()), second = c.scratch.tensor(shape, set_.dtype());
  embedding_->forward(c, pass.batch.tokens, first);
  Tensor x = evaluate_layers(pass, first, second);
  Tensor chosen = c.scratch.tensor(few, set_.dtype()), normed = c.scratch.tensor(few, set_.dtype());
  embedding(c, x, rows, chosen);  // a table look-up: rows of x
  rms_norm(c, chosen, norm_->value, config_.rms_norm_eps, normed, c.scratch.tensor({few[0]}, accumulator_of(set_.dtype())));
  head_->logits(c, normed, logits);
}

std::size_t Qwen3Model::routed_bytes(std::int64_t tokens, const RecomputeSettings& recompute, const BalanceSettings& balance) const {
  std::size_t bytes = 0;
  bool full = recompute.granularity == RecomputeSettings::Granularity::full;
  for (std::int64_t i = 0; i < stage_.layers(); ++i) {
    bool kept = !full || (recompute.method == RecomputeSettings::Method::block && i >= recompute.num_layers);
    const Moe* moe = layers_[std::size_t(i)].moe();
    if (kept && moe) bytes += moe->routed_bytes(tokens, set_.dtype(), recompute, balance);
  }
  return bytes;
}

}  // namespace af
