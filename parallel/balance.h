// Load balancing of a MoE layer: the three auxiliary losses and the z-loss, their values and their gradients.
// Per layer coeff * E * sum_e f_e P_e: f_e the share of the (token, slot) choices that went to expert e (sum 1), P_e the mean
// router probability. Layers are summed, micro-batches averaged.
//   aux_loss         f and P of the micro-batch
//   seq_aux_loss     f and P of each sequence, averaged over sequences
//   global_aux_loss  f of the previous step's whole global batch (uniform at the first), P of the current one
#pragma once
#include <cstdint>
#include <vector>

#include "core/memory.h"

namespace af {

enum class BalanceType { none, aux_loss, seq_aux_loss, global_aux_loss };

struct BalanceSettings {
  BalanceType type = BalanceType::none;
  double aux_loss_coeff = 0;
  double z_loss_coeff = 0;
};

// What one MoE layer remembers over the micro-batches of a step, and from the step before (kept in checkpoints).
struct RouterStatistics {
  explicit RouterStatistics(std::int64_t num_experts = 0);
  // Adds what expert_load() (core/ops/moe.h) found for S sequences of T / S tokens, and the router's log-sum-exps.
  void add(const BalanceSettings& settings, const Tensor& counts, const Tensor& prob_sums, const Tensor& log_sum_exp, std::int64_t top_k);
  void end_step();  // the current counts become the previous ones; sums begin again

  std::vector<std::int64_t> previous_counts;  // [E]; all zero: no step yet, f is uniform
  std::vector<std::int64_t> counts;           // [E] of this step so far
  std::vector<double> prob_sums;              // [E] of this step so far
  double balance_loss_sum = 0;                // over micro-batches, coefficient included
  double z_loss_sum = 0;                      // likewise
  std::int64_t tokens = 0, micro_batches = 0;

  double previous_share(std::int64_t expert) const;  // f_e of the previous step
  // coeff * E * sum f P of the whole step so far, with the f that belongs to it.
  double loss_with_current_counts(const BalanceSettings& settings) const;
};

// d_probs [S, E] (accumulator type): what the loss adds to the gradient of each token's probabilities, per sequence;
// counts [S, E] int64 of the micro-batch, `tokens` in it, `micro_batches` in the global batch.
void balance_gradient(const BalanceSettings& settings, const RouterStatistics& statistics, const Tensor& counts, std::int64_t tokens, std::int64_t top_k,
                      std::int64_t micro_batches, const Tensor& d_probs);

}  // namespace af
