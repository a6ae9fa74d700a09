// Qwen3's mixture of experts: route, permute, grouped matmul, SwiGLU with the router's weight, grouped matmul, unpermute.
// y = sum over the k chosen experts of down_e(p_e * silu(gate_e x) * up_e x); nothing is dropped unless a capacity is asked for
// (parallel/expert_capacity.h). Here T is T_local: every rank routes its own part of the residual stream. Experts are cut over the
// expert-parallel ranks, their width over the expert-tensor-parallel ones.
//
// A rank has memory for planned_rows(). Where routing would send more to any of the ranks that exchange rows, these run the layer in
// rounds (parallel/token_dispatcher.h), one after the other in the memory of one: nothing is kept of them, the backward brings the tokens
// again, and weight gradients are computed at once, also where a schedule delays the others. Outputs are bit-equal to those of one round.
#pragma once
#include <span>
#include <vector>

#include "models/config.h"
#include "models/model_parallel.h"
#include "models/pass.h"
#include "parallel/linear.h"
#include "parallel/parameter_set.h"
#include "parallel/token_dispatcher.h"

namespace af {

// Rows for its experts in a layer that a rank has memory for, in micro-batches of which every rank has `tokens` tokens, T. One rank that
// has all experts: exactly those that come. Else balance.memory_factor times those of balanced routing.
std::int64_t planned_rows(const ModelConfig& config, const MeshShape& mesh, std::int64_t tokens, const BalanceSettings& balance);

class Moe {
 public:
  struct Saved {
    Tensor probs;                       // [T, E], accumulator type
    Tensor expert, weight;              // [T, k] int32 and accumulator type
    Tensor log_sum_exp;                 // [T]
    Tensor counts;                      // [S, E] int64: choices per sequence and expert
    Tensor source, position;            // [R], [T, k] int32: the permutation, round by round, and its inverse
    Tensor offsets;                     // [E + 1] int64: this rank's rows of each expert; dropped ones come after them
    TokenDispatcher::Plan plan;         // where they go; one rank: empty
    Arena* pool = nullptr;              // memory for the rows at the experts
    struct Rows {                       // of one round
      TokenDispatcher::Round round;     // one rank: `sent` alone
      Tensor row_weight;                // [N]: weight in expert order
      Tensor x;                         // [N, H] tokens in expert order
      Tensor gate_up;                   // [N, 2F]
      Tensor act;                       // [N, F]; recompute moe_act: empty
      std::int64_t size() const { return row_weight.numel(); }
    } rows;                             // several rounds: empty, nothing of them is kept
    bool empty() const { return probs.empty(); }  // recompute moe
  };
  Moe(const ModelConfig& config, const ModelParallel& parallel, std::int64_t layer, ParameterSet& set);

  // y [T, H] += moe(x); an empty y: only what the backward needs. In Mode::train `statistics` counts the load.
  void forward(const Pass& pass, const Tensor& x, RouterStatistics& statistics, Saved& saved, const Tensor& y) const;
  // Uses `saved` up: gate_up's memory takes its gradient.
  void backward(const Pass& pass, const Tensor& dy, const Tensor& x, const RouterStatistics& statistics, const Saved& saved, const Tensor& dx) const;

  // Bytes of the routed pool that a micro-batch of T tokens takes at most in this layer.
  std::size_t routed_bytes(std::int64_t tokens, DType dtype, const RecomputeSettings& recompute, const BalanceSettings& balance) const;

 private:
  using Offsets = std::span<const std::int64_t>;
  void route_tokens(const Pass& pass, const Tensor& x, RouterStatistics& statistics, Saved& saved) const;
  void count_load(const Pass& pass, RouterStatistics& statistics, Saved& saved) const;
  // [T, k] in scratch: the expert of each choice, or E beyond its capacity.
  Tensor within_capacity(const Pass& pass, const Saved& saved) const;
  // Round `index`: its rows at the experts, and their first half.
  Saved::Rows activate(const Pass& pass, Arena& memory, Arena& act_memory, const Tensor& x, const Tensor& home, const Saved& saved,
                       std::int64_t index) const;
  // Gradients of the round's rows, back on the ranks of their tokens: home [R, H] and home_weights [R].
  void experts_backward(const Pass& pass, const Tensor& dy, const Saved& saved, const Saved::Rows& rows, const Tensor& home,
                        const Tensor& home_weights) const;
  // out [N, ...] from x [T, ...], each token to its experts. They leave from `home` [R, H], which has no use until they come back
  // (empty: scratch).
  void to_experts(const Pass& pass, const Saved& saved, const TokenDispatcher::Round& round, const Tensor& x, const Tensor& home,
                  const Tensor& out) const;
  void scalars_to_experts(const Pass& pass, const Saved& saved, const TokenDispatcher::Round& round, const Tensor& weight, const Tensor& out) const;
  void router_backward(const Pass& pass, const Tensor& d_choices, const Tensor& x, const RouterStatistics& statistics, const Saved& saved,
                       const Tensor& dx) const;
  Offsets expert_offsets(const Saved& saved, const Saved::Rows& rows) const;  // [E_local + 1]
  // Which of this rank's tokens are of sequence s of the micro-batch.
  Range tokens_of(const Pass& pass, std::int64_t s) const;
  std::int64_t kept_rows(const Saved& saved) const { return saved.offsets.as<std::int64_t>()[experts_]; }

  std::int64_t experts_, top_k_, hidden_, width_;  // width_: this rank's
  bool norm_topk_;
  ModelConfig config_;
  MeshShape mesh_;
  Comm sharers_;  // ranks that share a micro-batch
  TensorParallel tp_;
  TokenDispatcher dispatcher_;
  Linear router_;
  Parameter *gate_up_, *down_;  // [E_local, 2F, H], [E_local, H, F]
};

}  // namespace af
