// Qwen3's mixture of experts, dropless: route, permute, grouped matmul, SwiGLU with the router's weight, grouped matmul,
// unpermute. y = sum over the k chosen experts of down_e(p_e * silu(gate_e x) * up_e x).
#pragma once
#include <span>
#include <vector>

#include "models/config.h"
#include "models/pass.h"
#include "parallel/linear.h"
#include "parallel/parameter_set.h"

namespace af {

class Moe {
 public:
  struct Saved {
    Tensor probs;                       // [T, E], accumulator type
    Tensor expert, weight;              // [T, k] int32 and accumulator type
    Tensor log_sum_exp;                 // [T]
    Tensor counts;                      // [S, E] int64: choices per sequence and expert
    Tensor source, position;            // [R], [T, k] int32: the permutation and its inverse
    Tensor offsets;                     // [E + 1] int64: rows of each expert
    Tensor row_weight;                  // [R]: weight in expert order
    Tensor x;                           // [R, H] tokens in expert order
    Tensor gate_up;                     // [R, 2F]
    Tensor act;                         // [R, F]; recompute moe_act: empty
    bool empty() const { return probs.empty(); }  // recompute moe
  };
  Moe(const ModelConfig& config, std::int64_t layer, ParameterSet& set);

  // y [T, H] += moe(x); an empty y: only what the backward needs. In Mode::train `statistics` counts the load.
  void forward(const Pass& pass, const Tensor& x, RouterStatistics& statistics, Saved& saved, const Tensor& y) const;
  // Uses `saved` up: gate_up's memory takes its gradient.
  void backward(const Pass& pass, const Tensor& dy, const Tensor& x, const RouterStatistics& statistics, const Saved& saved, const Tensor& dx) const;

  // Bytes of the routed pool that a micro-batch of T tokens takes in this layer.
  std::size_t routed_bytes(std::int64_t tokens, DType dtype, const RecomputeSettings& recompute) const;

 private:
  void route_tokens(const Pass& pass, const Tensor& x, RouterStatistics& statistics, Saved& saved) const;
  void activate(const Pass& pass, Arena& act_memory, const Tensor& x, Saved& saved) const;

  std::int64_t experts_, top_k_, hidden_, width_;
  bool norm_topk_;
  Linear router_;
  Parameter *gate_up_, *down_;  // [E, 2F, H], [E, H, F]
};

}  // namespace af
