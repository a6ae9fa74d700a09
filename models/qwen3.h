// Qwen3, dense and MoE: embedding, decoder layers, final norm, LM head with loss.
#pragma once
#include <deque>
#include <vector>

#include "models/decoder_layer.h"
#include "parallel/lm_head.h"

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
    Tensor last, last_rstd;                       // [T, H], [T]: what enters the final norm
    Tensor d_norm;                                // [T, H]: the head's gradient, computed with the loss
    Tensor token_loss;                            // [T], accumulator type; 0 where the target is not counted
  };

  // Adds its parameters to `set`, in the order of the published names; set.allocate() gives them memory.
  Qwen3Model(const ModelConfig& config, const Device& device, ParameterSet& set);
  const ModelConfig& config() const { return config_; }
  const ParameterSet& parameters() const { return set_; }

  // RoPE for positions 0..positions-1; a stage may change it, and config() then says so. Call before the first pass. Memory for
  // activations is given back: the next passes have other sizes.
  void set_rope(const Context& context, const RopeSettings& rope, std::int64_t positions);

  // The losses of the batch's tokens in saved.token_loss. pass.keep and pass.routed must be saved's own.
  // loss_scale: 1 / counted targets of the global batch, the factor of every loss in the gradient.
  void forward(const Pass& pass, double loss_scale, Saved& saved);
  // Adds to the gradients of all parameters.
  void backward(const Pass& pass, Saved& saved);
  // token_loss [T] only; nothing is kept. With `logits` [T, V] not empty, these too.
  void evaluate(const Pass& pass, const Tensor& token_loss, const Tensor& logits = {});

  // One per layer; empty for dense layers.
  std::vector<RouterStatistics>& router_statistics() { return statistics_; }
  const std::vector<RouterStatistics>& router_statistics() const { return statistics_; }
  // The routed pool's size for micro-batches of T tokens.
  std::size_t routed_bytes(std::int64_t tokens, const RecomputeSettings& recompute) const;

 private:
  struct Chunk {
    std::int64_t begin, end;  // layers
    bool recompute;
  };
  const std::vector<Chunk>& chunks(const RecomputeSettings& recompute);
  void forward_layers(const Pass& pass, const Chunk& chunk, Tensor x, Saved& saved, const Tensor& y);
  Pass transient_pass(const Pass& pass, Mode mode);

  ModelConfig config_;
  ParameterSet& set_;
  Parameter* embedding_;
  std::deque<DecoderLayer> layers_;
  Parameter* norm_;
  LmHead head_;
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
