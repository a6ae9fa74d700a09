// A few training steps of a tiny Qwen3-MoE on one process. parallel.cc is the same program on many: `diff serial.cc parallel.cc` shows
// all that changes.
#include <fmt/core.h>

#include "launch/parallel_model.h"

using namespace af;

constexpr std::int64_t kSequence = 64, kSequences = 8;  // tokens, sequences of a global batch

// A sequence of two documents; the target of a token is the next one of its document, the last has none.
PackedSequence sequence(std::int64_t number, std::int64_t vocab_size) {
  PackedSequence s;
  s.document_begins = {0, 24, kSequence};
  for (std::int64_t i = 0; i < kSequence; ++i) {
    s.tokens.push_back(std::int32_t((i * i + number) % vocab_size));
    s.positions.push_back(std::int32_t(i < 24 ? i : i - 24));
  }
  for (std::int64_t i = 0; i < kSequence; ++i) s.targets.push_back(i == 23 || i + 1 == kSequence ? -1 : s.tokens[std::size_t(i + 1)]);
  return s;
}

int main() {
  ModelConfig config = model_preset("tiny_moe");
  Device device;

  ParallelLayout layout;
  ParallelModel model(config, device, DType::f32, layout, Comm());
  initialize(model.context(), model.parameters(), /*seed=*/1, config.initializer_range);
  model.optimizer().reset_master(model.context());

  const std::int64_t micro_batch_size = 1, own = kSequences;
  RecomputeSettings recompute;
  BalanceSettings balance{BalanceType::global_aux_loss, 1e-3, 0};
  model.begin_stage(config.rope, kSequence, micro_batch_size, own / micro_batch_size, {recompute, balance});
  GlobalBatch batch(device, kSequence, micro_batch_size, own / micro_batch_size);

  for (int step = 0; step < 5; ++step) {
    std::vector<PackedSequence> sequences;
    for (std::int64_t i = 0; i < kSequences; ++i) sequences.push_back(sequence(step * kSequences + i, config.vocab_size));
    batch.assign(sequences);
    StepLoss loss = model.forward_backward(batch, {recompute, balance});
    model.end_router_step();
    OptimizerResult result = model.update(OptimizerSettings{}, /*lr=*/1e-3);
    fmt::print("step {} loss {:.6f} gradient norm {:.6f}\n", step + 1, loss.lm_loss, result.grad_norm);
  }
}
