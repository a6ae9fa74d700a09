// Bytes that ranks send in one optimizer step, by formula: one function for each operation and axis. tests/launch/communication_test.cc
// holds them against what Comm counts, byte by byte. Letters as in pass.h; n: ranks of the axis, a and c: bytes of an element in the
// compute type and in the accumulator type. All figures are of a whole group together; what one rank sends is the n-th part of it.
//
// Beside Megatron-LM's (elements per layer, micro-batch and rank, s the rank's own share under CP):
//   TP, TP+SP  8 (n-1)/n b s h, plus 2 where SP gathers an input again for the weight gradient. Ours: the same for attention and a dense
//              MLP together (each is entered twice in the backward: once for its gradient, once for its input); the experts' layers have
//              none of it, because ours route each rank's own part of the tokens.
//   CP         6 (n-1) b s h_kv / t: every key and value to every rank. Ours: only those rows that a rank's documents reach back to
//              (parallel/context_parallel.h): 3/4 of it for one document as long as the sequence, nothing where none crosses a cut.
//   EP         4 k T h (n-1)/n. Ours: the same, of the rows that really leave; and the router's weight with each row (2 elements), because
//              it is a factor of the experts' activation and its gradient comes home.
//   PP         2 b s h per boundary (divided by t under SP), times v. Ours: the same.
//   DP         reduce-scatter of gradients and all-gather of parameters, (n-1)/n each. Ours: the same, over DP x CP and EDP.
// In groups of more than 8 ranks an all-gather of at most 256 KiB goes by rank 0 and takes n+1 for n (parallel/comm_algorithms.cc):
// numbers of rows, of which the formulas take no notice.
#pragma once
#include <cstdint>
#include <vector>

#include "models/config.h"
#include "models/pass.h"
#include "parallel/mesh.h"
#include "parallel/pipeline_layout.h"

namespace af {

// What an optimizer step is made of.
struct StepShape {
  MeshShape mesh;
  PipelineLayout stages;  // virtual ones
  DType dtype = DType::f32;
  std::int64_t seq_length = 0, micro_batch_size = 1, micro_batches = 1;  // of each data-parallel rank
  RecomputeSettings recompute;
  BalanceType balance = BalanceType::none;
  bool capacity = false;  // of experts: ranks that share a micro-batch tell each other its choices
  std::int64_t bucket_numel = Sharding{}.bucket_numel;

  std::int64_t tokens() const { return micro_batch_size * seq_length / mesh.cp; }                            // T
  std::int64_t local_tokens() const { return mesh.sequence_parallel ? tokens() / mesh.tp : tokens(); }  // T_local
};

// What depends on the data: rows that go from one rank to another.
struct MovedRows {
  std::int64_t keys = 0;              // tokens, of all micro-batches of all data-parallel ranks: sum of ContextPlan::send_rows to others
  std::vector<std::int64_t> experts;  // of each layer: (token, choice) to other ranks of ep, of the whole global batch
};
// Documents as long as the sequence, and experts that are all chosen equally often.
MovedRows expected_rows(const ModelConfig& model, const StepShape& shape);

// What full recomputation does with a layer once more.
struct Again {
  bool forward = false;  // the layer is computed again,
  bool output = false;   // with its output, which the next one needs
};
Again again_of(const RecomputeSettings& recompute, const StageLayers& stage, std::int64_t layer);

// Of one micro-batch. A block is entered and left (parallel/tensor_parallel.h): with sequence parallelism (n-1) T H a each, else 0 and
// 2 (n-1) T H a.
std::int64_t tp_attention_bytes(const ModelConfig& model, const StepShape& shape, Again again);
std::int64_t tp_mlp_bytes(const ModelConfig& model, const StepShape& shape, Again again);
std::int64_t tp_embedding_bytes(const ModelConfig& model, const StepShape& shape);
std::int64_t tp_head_bytes(const ModelConfig& model, const StepShape& shape);  // with 3 numbers per token and rank for the loss
// The balance loss's load of a MoE layer, over the ranks that share a micro-batch: [S, E] counts and sums of probabilities in 8 bytes.
std::int64_t tp_balance_bytes(const ModelConfig& model, const StepShape& shape, Again again);
// Of one step: gradients of which every rank of tp has a part (norms, router, keys and values of which there are fewer heads than ranks).
std::int64_t tp_gradient_bytes(const ModelConfig& model, const StepShape& shape, const StageLayers& stage);

// Of one row that moves: keys and values there and there again, their gradients back.
std::int64_t cp_row_bytes(const ModelConfig& model, const StepShape& shape, Again again);

// Of one row (token, choice) of a MoE layer that moves, of a layer that runs in one round; and the numbers of rows, of one micro-batch.
std::int64_t expert_row_bytes(const ModelConfig& model, const StepShape& shape, Again again);
std::int64_t ep_count_bytes(const ModelConfig& model, const StepShape& shape, Again again);
std::int64_t etp_count_bytes(const ModelConfig& model, const StepShape& shape, Again again);

// Of one micro-batch, one boundary between virtual stages and one rank of a stage.
std::int64_t pp_boundary_bytes(const ModelConfig& model, const StepShape& shape);
// Of one step: the tied embedding's gradient between the first and last stage, of the ranks with all parts of it.
std::int64_t pp_tied_bytes(const ModelConfig& model, const StepShape& shape);

// Of one step and one rank's flat buffers of `elements`: gradients to their shares, values from them.
std::int64_t dp_bytes(DType dtype, std::int64_t elements, int ranks);

// The whole step: of all ranks together, by axis. Not over the world: the loss, the norm, and some 2 E numbers of each router.
AxisBytes step_bytes(const ModelConfig& model, const StepShape& shape, const MovedRows& rows);

}  // namespace af
