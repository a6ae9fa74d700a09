// Qwen3's mixture of experts, dropless: route, permute, grouped matmul, SwiGLU with the router's weight, grouped matmul,
// unpermute. y = sum over the k chosen experts of down_e(p_e * silu(gate_e x) * up_e x). Here T is T_local: every rank routes its own
// part of the residual stream. Experts are cut over the expert-parallel ranks, their width over the expert-tensor-parallel ones.
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

class Moe {
 public:
  struct Saved {
    Tensor probs;                       // [T, E], accumulator type
    Tensor expert, weight;              // [T, k] int32 and accumulator type
    Tensor log_sum_exp;                 // [T]
    Tensor counts;                      // [S, E] int64: choices per sequence and expert
    Tensor source, position;            // [R], [T, k] int32: the permutation and its inverse
    Tensor offsets;                     // [E + 1] int64: this rank's rows of each expert
    TokenDispatcher::Plan plan;         // where they go; one rank: empty
    Tensor row_weight;                  // [N]: weight in expert order
    Tensor x;                           // [N, H] tokens in expert order
    Tensor gate_up;                     // [N, 2F]
    Tensor act;                         // [N, F]; recompute moe_act: empty
    bool empty() const { return probs.empty(); }  // recompute moe
  };
  Moe(const ModelConfig& config, const ModelParallel& parallel, std::int64_t layer, ParameterSet& set);

  // y [T, H] += moe(x); an empty y: only what the backward needs. In Mode::train `statistics` counts the load.
  void forward(const Pass& pass, const Tensor& x, RouterStatistics& statistics, Saved& saved, const Tensor& y) const;
  // Uses `saved` up: gate_up's memory takes its gradient.
  void backward(const Pass& pass, const Tensor& dy, const Tensor& x, const RouterStatistics& statistics, const Saved& saved, const Tensor& dx) const;

  // Bytes of the routed pool that a micro-batch of T tokens takes in this layer.
  std::size_t routed_bytes(std::int64_t tokens, DType dtype, const RecomputeSettings& recompute) const;

 private:
  using Offsets = std::span<const std::int64_t>;
  void route_tokens(const Pass& pass, const Tensor& x, RouterStatistics& statistics, Saved& saved) const;
  void count_load(const Pass& pass, RouterStatistics& statistics, Saved& saved) const;
  void activate(const Pass& pass, Arena& act_memory, const Tensor& x, Saved& saved) const;
  // out [N, ...] from x [T, ...], each token to its experts; and the other way.
  void to_experts(const Pass& pass, const Saved& saved, const Tensor& x, const Tensor& out) const;
  void scalars_to_experts(const Pass& pass, const Saved& saved, const Tensor& weight, const Tensor& out) const;
  void router_backward(const Pass& pass, const Tensor& d_row_weight, const Tensor& x, const RouterStatistics& statistics, const Saved& saved,
                       const Tensor& dx) const;
  Offsets expert_offsets(const Saved& saved) const;  // [E_local + 1]
  std::int64_t rows(const Saved& saved) const { return saved.row_weight.numel(); }
  // Which of this rank's tokens are of sequence s of the micro-batch.
  Range tokens_of(const Pass& pass, std::int64_t s) const;

  std::int64_t experts_, top_k_, hidden_, width_;  // width_: this rank's
  bool norm_topk_;
  Comm sharers_;  // ranks that share a micro-batch
  TensorParallel tp_;
  TokenDispatcher dispatcher_;
  Linear router_;
  Parameter *gate_up_, *down_;  // [E_local, 2F, H], [E_local, H, F]
};

}  // namespace af
