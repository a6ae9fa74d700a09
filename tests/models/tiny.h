// Tiny models and packed micro-batches for the tests of models/.
#pragma once
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/ops/elementwise.h"
#include "core/random.h"
#include "models/qwen3.h"
#include "parallel/optimizer.h"

namespace af::test {

inline ModelConfig tiny_config(bool moe = true) {
  ModelConfig c;
  c.model_type = moe ? "qwen3_moe" : "qwen3";
  c.vocab_size = 37;
  c.hidden_size = 20;
  c.num_hidden_layers = 3;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 6;
  c.intermediate_size = 28;
  c.max_position_embeddings = 64;
  c.initializer_range = 0.2;
  c.rope.theta = 100;
  if (moe) {
    c.num_experts = 5;
    c.num_experts_per_tok = 2;
    c.moe_intermediate_size = 12;
    c.mlp_only_layers = {1};
  }
  return c;
}

// A micro-batch of two sequences with documents of the given lengths; every token's target is the next one's id in its document.
struct TinyBatch {
  std::vector<std::int32_t> tokens, targets, positions;
  std::vector<AttentionSegment> documents;
  MicroBatch batch;

  TinyBatch(const std::vector<std::int64_t>& lengths, std::int64_t vocab_size, std::uint64_t seed = 1, std::int64_t sequences = 2) {
    std::int64_t begin = 0;
    for (std::int64_t n : lengths) {
      documents.push_back({begin, begin + n, begin, begin + n});
      for (std::int64_t i = 0; i < n; ++i) {
        tokens.push_back(std::int32_t(random_below(seed, 7, std::uint64_t(begin + i), std::uint64_t(vocab_size))));
        positions.push_back(std::int32_t(i));
      }
      begin += n;
    }
    for (const AttentionSegment& d : documents)
      for (std::int64_t i = d.q_begin; i < d.q_end; ++i) targets.push_back(i + 1 < d.q_end ? tokens[std::size_t(i + 1)] : -1);
    batch.tokens = Tensor(tokens.data(), DType::i32, {begin});
    batch.targets = Tensor(targets.data(), DType::i32, {begin});
    batch.positions = Tensor(positions.data(), DType::i32, {begin});
    batch.sequences = sequences;
    batch.documents = documents;
  }
  std::int64_t size() const { return std::int64_t(tokens.size()); }
  std::int64_t counted() const {
    std::int64_t n = 0;
    for (std::int32_t t : targets) n += t >= 0;
    return n;
  }
};

// A model with its parameters, ready to run.
struct TinyModel {
  Device device;
  Arena scratch;
  Context context;
  ParameterSet set;
  Qwen3Model model;
  Qwen3Model::Saved saved;
  RecomputeSettings recompute;
  BalanceSettings balance;

  TinyModel(const ModelConfig& c, DType dtype, int threads = 1, std::uint64_t seed = 3)
      : device{Device::Type::cpu, threads},
        scratch(device, "scratch"),
        context{device, scratch},
        set(device, dtype),
        model(c, device, set),
        saved(device, c.num_hidden_layers) {
    set.allocate();
    initialize(context, set, seed, c.initializer_range);
    model.set_rope(context, c.rope, 64);
  }
  // Loss of the batch, gradients added to the set's.
  double forward_backward(const TinyBatch& b, std::int64_t micro_batches = 1) {
    saved.reset();
    Pass pass{context, b.batch, saved.keep, saved.routed, Mode::train, recompute, balance, micro_batches};
    double scale = 1.0 / double(b.counted());
    model.forward(pass, scale, saved);
    double loss = sum(context, saved.token_loss) * scale;
    model.backward(pass, saved);
    return loss;
  }
  // The whole objective, forward only: language model, balance and z losses.
  double objective(const TinyBatch& b) {
    saved.reset();
    for (RouterStatistics& s : model.router_statistics()) {
      std::vector<std::int64_t> previous = s.previous_counts;
      s.end_step();
      s.previous_counts = previous;
    }
    Pass pass{context, b.batch, saved.keep, saved.routed, Mode::train, recompute, balance, 1};
    model.forward(pass, 0, saved);  // scale 0: the head adds nothing to the gradients
    double loss = sum(context, saved.token_loss) / double(b.counted());
    for (RouterStatistics& s : model.router_statistics()) loss += s.balance_loss_sum + s.z_loss_sum;
    return loss;
  }
};

}  // namespace af::test
