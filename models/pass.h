// What a forward or backward pass of one micro-batch needs beside its input.
// Letters: T tokens of the micro-batch, H hidden_size, D head_dim, Hq/Hkv heads, F an MLP's intermediate size, E experts,
// k experts per token, R = T k routed rows, N rows for this rank's experts, V vocabulary, S sequences. T counts the tokens that this
// rank's attention sees (1/CP of the micro-batch); the residual stream has T_local of them (T / TP with sequence parallelism). Heads
// and widths are this rank's.
#pragma once
#include <span>
#include <vector>

#include "core/memory.h"
#include "core/ops/attention.h"
#include "parallel/balance.h"
#include "parallel/context_parallel.h"
#include "parallel/data_parallel.h"
#include "parallel/delayed_gradients.h"

namespace af {

class KeyValueCache;

// S sequences of packed documents side by side: attention is block-diagonal, positions restart per document.
struct MicroBatch {
  Tensor tokens, targets, positions;            // [T] int32; target -1: not counted
  std::int64_t sequences = 1;                   // S
  std::span<const AttentionSegment> documents;  // one per document; with context parallelism one per piece of it, keys as in `context`
  const ContextPlan* context = nullptr;         // context parallelism: which keys move
};

// Recomputation (Megatron's names). A module named here keeps less for the backward and computes it again, bit-equal.
struct RecomputeSettings {
  enum class Granularity { none, selective, full };
  enum class Method { uniform, block };
  Granularity granularity = Granularity::none;
  bool core_attn = false;   // selective: the attention's output and log-sum-exp
  bool layernorm = false;   // the outputs of the norms, q_norm and k_norm with RoPE included
  bool moe_act = false;     // the experts' activation
  bool mlp = false;         // a dense MLP as a whole
  bool moe = false;         // a MoE layer as a whole
  Method method = Method::uniform;  // full: chunks of num_layers layers keep their input; block: only the first num_layers do
  std::int64_t num_layers = 1;
};

enum class Mode {
  train,      // keep what the backward needs, count the experts' load
  recompute,  // the same once more: nothing is counted twice
  evaluate    // keep nothing
};

struct Pass {
  Context context;
  const MicroBatch& batch;
  Arena& keep;        // tensors that the backward needs: the Saved slot of this micro-batch
  Arena& routed;      // likewise those whose size routing decides: a capped pool
  Mode mode = Mode::train;
  const RecomputeSettings& recompute;
  const BalanceSettings& balance;
  std::int64_t micro_batches = 1;         // of the global batch: the balance losses are averaged over them
  ParameterGatherer* gatherer = nullptr;  // whose values come while the forward goes on
  GradientReducer* reducer = nullptr;     // the last micro-batch: is told which gradients are complete
  DelayedGradients* delayed = nullptr;    // zero bubble: takes the weight gradients of this backward
  KeyValueCache* cache = nullptr;         // evaluate: the documents' key ranges are its rows, whose last ones are this batch's

  Pass with(Arena& keep_in, Arena& routed_in, Mode other) const {
    return {context, batch, keep_in, routed_in, other, recompute, balance, micro_batches, gatherer, reducer, delayed, cache};
  }
  // Memory for what a weight gradient needs: scratch, or the slot's own where it is delayed.
  Arena& lasting() const { return delayed ? keep : context.scratch; }
  // The same pass with what it keeps in scratch memory: for what a module computes again within one call.
  Pass in_scratch(Mode other) const { return with(context.scratch, context.scratch, other); }
  // For what a backward computes again.
  Pass again() const { return with(lasting(), lasting(), Mode::recompute); }
};

}  // namespace af
