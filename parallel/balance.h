// Load balancing of a MoE layer: the three auxiliary losses and the z-loss, their values and their gradients.
// Per layer coeff * E * sum_e f_e P_e: f_e the share of the (token, slot) choices that went to expert e (sum 1), P_e the mean
// router probability. Layers are summed, micro-batches averaged.
//   aux_loss         f and P of the micro-batch
//   seq_aux_loss     f and P of each sequence, averaged over sequences
//   global_aux_loss  f of the previous step's whole global batch (uniform at the first), P of the current one
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "core/memory.h"
#include "parallel/comm.h"
#include "parallel/expert_capacity.h"

namespace af {

enum class BalanceType { none, aux_loss, seq_aux_loss, global_aux_loss };

struct BalanceSettings {
  BalanceType type = BalanceType::none;
  double aux_loss_coeff = 0;
  double z_loss_coeff = 0;
  // Rows that a rank has memory for in a layer, times those of balanced routing. Where a rank would get more, all that exchange rows with
  // it run the layer in rounds.
  double memory_factor = 1.5;
  // Choices beyond an expert's capacity are dropped (parallel/expert_capacity.h); none: nothing ever is. The capacity is for all tokens of a
  // micro-batch, on whatever ranks they are, so that no layout changes what is dropped. The losses count choices before.
  std::optional<double> capacity_factor = {};
  DropPolicy drop_policy = DropPolicy::probs;
};

// What expert_load() (core/ops/moe.h) finds for S sequences: choices per expert [S, E] int64, and sums of probabilities [S, E] fp64.
struct RouterLoad {
  Tensor counts, prob_sums;
};

// What one MoE layer remembers over the micro-batches of a step, and from the step before (kept in checkpoints).
struct RouterStatistics {
  explicit RouterStatistics(std::int64_t num_experts = 0);
  // Adds a micro-batch: `own`, the load of this rank's tokens with their log-sum-exps; `whole`, that of all `tokens` of the micro-batch
  // (aux_loss and seq_aux_loss), whose loss is counted where `speaks`: on one of the ranks that share the micro-batch.
  void add(const BalanceSettings& settings, const RouterLoad& own, const RouterLoad& whole, bool speaks, const Tensor& log_sum_exp, std::int64_t top_k,
           std::int64_t tokens);
  void end_step();  // the current counts become the previous ones; sums begin again

  std::vector<std::int64_t> previous_counts;  // [E]; all zero: no step yet, f is uniform
  std::vector<std::int64_t> counts;           // [E] of this step so far
  std::vector<double> prob_sums;              // [E] of this step so far
  double balance_loss_sum = 0;                // over micro-batches, coefficient included
  double z_loss_sum = 0;                      // likewise
  double tokens = 0, micro_batches = 0;       // the latter in parts of 1 / (ranks that share a micro-batch), so that sums over ranks count it once
  double dropped = 0;                         // choices beyond an expert's capacity
  double in_rounds = 0;                       // passes that experts ran in rounds, of a layer and micro-batch of the ranks that exchange rows

  double previous_share(std::int64_t expert) const;  // f_e of the previous step
  // coeff * E * sum f P of the whole step so far, with the f that belongs to it.
  double loss_with_current_counts(const BalanceSettings& settings) const;
};

// Adds up what the ranks of `stage` counted in this step, so that all know the global batch's. Collective.
void reduce_over(const Comm& stage, std::vector<RouterStatistics>& layers);

// d_probs [S, E] (accumulator type): what the loss adds to the gradient of each token's probabilities, per sequence;
// counts [S, E] int64 of the micro-batch, `tokens` in it, `micro_batches` in the global batch.
void balance_gradient(const BalanceSettings& settings, const RouterStatistics& statistics, const Tensor& counts, std::int64_t tokens, std::int64_t top_k,
                      std::int64_t micro_batches, const Tensor& d_probs);

}  // namespace af
