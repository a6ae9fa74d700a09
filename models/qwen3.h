// Qwen3, dense and MoE: embedding, decoder layers, final norm, LM head with loss; the whole or one virtual pipeline stage of it.
#pragma once
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "models/decoder_layer.h"
#include "parallel/embedding.h"
#include "parallel/lm_head.h"
#include "parallel/pipeline_layout.h"

namespace af {

class Qwen3Model {
 public:
  // Everything that the backward of one micro-batch needs: one per micro-batch in flight.
  struct Saved {
    Saved(const Device& device, std::int64_t layers);
    void reset();                                 // after the backward
    std::size_t bytes() const { return keep.used() + routed.used(); }
    Arena keep;
    Arena routed;                                 // capped: what routing decides the size of
    std::vector<DecoderLayer::Saved> layers;
    std::vector<Tensor> chunk_inputs;             // full recomputation: what enters each chunk of layers
    Tensor last, last_rstd;                       // [T_local, H], [T_local]: what enters the final norm
    Tensor d_norm;                                // [T_local, H]: the head's gradient, computed with the loss
    Tensor token_loss;                            // [T_local], accumulator type; 0 where the target is not counted
    DelayedGradients delayed;                     // zero bubble: between backward and backward_weight
  };

  // Adds its parameters to `set`, in the order of the published names; set.allocate() gives them memory.
  Qwen3Model(const ModelConfig& config, const Device& device, ParameterSet& set, const ModelParallel& parallel = {});
  // One virtual stage: the layers and ends that `stage` names.
  Qwen3Model(const ModelConfig& config, const Device& device, ParameterSet& set, const ModelParallel& parallel, const StageLayers& stage);
  const ModelConfig& config() const { return config_; }
  const ParameterSet& parameters() const { return set_; }

  // RoPE for positions 0..positions-1; a stage may change it, and config() then says so. Call before the first pass. Memory for
  // activations is given back: the next passes have other sizes.
  void set_rope(const Context& context, const RopeSettings& rope, std::int64_t positions);

  // The losses of the batch's tokens in saved.token_loss. pass.keep and pass.routed must be saved's own.
  // loss_scale: 1 / counted targets of the global batch, the factor of every loss in the gradient.
  // A virtual stage: input [T_local, H] from the stage before, which must stay as it is until the backward; output [T_local, H] for the
  // next.
  void forward(const Pass& pass, double loss_scale, Saved& saved, const Tensor& input = {}, const Tensor& output = {});
  // Adds to the gradients of all parameters. d [T_local, H], of a virtual stage: the gradient of the output on entry (with the head:
  // whatever), of the input on return. With pass.delayed, which must be saved's own, weight gradients of the layers are left to
  // backward_weight().
  void backward(const Pass& pass, Saved& saved, const Tensor& d = {});
  void backward_weight(const Pass& pass, Saved& saved);
  // token_loss [T_local] only (with the head); nothing is kept. With `logits` [T, V] not empty, these too.
  void evaluate(const Pass& pass, const Tensor& token_loss, const Tensor& logits = {}, const Tensor& input = {}, const Tensor& output = {});
  // logits [n, V] (accumulator type) of the tokens that rows [n] int32 name, of a whole model on one rank; nothing is kept. The same bits
  // as evaluate()'s.
  void logits_of(const Pass& pass, const Tensor& rows, const Tensor& logits);
  const StageLayers& stage() const { return stage_; }
  std::int64_t local_tokens(const MicroBatch& batch) const { return parallel_.tensor.local_tokens(batch.positions.numel()); }

  // One per layer of the whole model; empty for dense layers and those of other stages.
  std::vector<RouterStatistics>& router_statistics() { return statistics_; }
  const std::vector<RouterStatistics>& router_statistics() const { return statistics_; }
  // What layers keep that are computed again.
  const Arena& transient() const { return transient_; }
  // The routed pool's size for micro-batches of T tokens.
  std::size_t routed_bytes(std::int64_t tokens, const RecomputeSettings& recompute, const BalanceSettings& balance) const;

 private:
  struct Chunk {
    std::int64_t begin, end;  // layers
    bool recompute;
  };
  const std::vector<Chunk>& chunks(const RecomputeSettings& recompute);
  void forward_layers(const Pass& pass, const Chunk& chunk, Tensor x, Saved& saved, const Tensor& y);
  // x [T_local, H] through the stage's layers; `other` is as large, and one of the two is returned.
  Tensor evaluate_layers(const Pass& pass, Tensor x, Tensor other);
  Pass chunk_pass(const Pass& pass, Mode mode, bool delayed);
  void need(const Pass& pass, std::span<Parameter* const> parameters) const;
  void complete(const Pass& pass, std::span<Parameter* const> parameters) const;
  void complete_all(const Pass& pass) const;
  DecoderLayer& layer(std::int64_t i) { return layers_[std::size_t(i - stage_.begin)]; }
  RouterStatistics& statistics(std::int64_t i) { return statistics_[std::size_t(i)]; }

  ModelConfig config_;
  ParameterSet& set_;
  ModelParallel parallel_;
  StageLayers stage_;
  Parameter* embedding_weight_;        // null where the stage has neither embedding nor a tied head
  std::deque<DecoderLayer> layers_;
  Parameter* norm_ = nullptr;          // with the head
  Parameter* head_weight_ = nullptr;
  std::optional<VocabParallelEmbedding> embedding_;
  std::optional<LmHead> head_;
  std::vector<RouterStatistics> statistics_;
  Buffer rope_buffer_;
  RopeTables rope_;
  Arena transient_;                           // what is kept for one chunk of layers only
  std::vector<DecoderLayer::Saved> transient_saved_;  // evaluate
  std::vector<Chunk> chunks_;
  RecomputeSettings chunks_of_;
  Device device_;
};

}  // namespace af
