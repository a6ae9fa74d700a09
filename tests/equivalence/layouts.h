// What is compared: models, layouts of up to 16 ranks, and how a step is taken.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "launch/parallel_model.h"

namespace af::test {

constexpr std::int64_t kSequence = 32, kSequences = 8, kSteps = 5;  // tokens, sequences of a global batch, optimizer steps

struct Case {
  std::string model = "moe";  // moe, dense, tied (dense, embedding and head one matrix), odd (layers and vocabulary that divide badly)
  ParallelLayout layout;
  DType dtype = DType::f64;
  std::int64_t micro_batch_size = 1, steps = kSteps;
  std::string recompute = "none";  // none, selective, modules, full, block
  BalanceType balance = BalanceType::none;
  bool skewed = false;        // nearly every token goes to experts 0 and 1
  double memory_factor = 16;  // below the imbalance: experts work in rounds
  double capacity = 0;        // of experts: a factor; 0: nothing is dropped
  DropPolicy drop_policy = DropPolicy::probs;
  std::function<PackedSequence(std::int64_t index, std::int64_t vocab)> data;  // sequence `index` of the run; empty: random documents
  std::string name() const;
};

ModelConfig model_of(const Case& c);
RecomputeSettings recompute_of(const Case& c);
BalanceSettings balance_of(const Case& c);
// Whether the model can be cut so; what forbids it is in `why`.
bool possible(const Case& c, std::string* why = nullptr);

// Every axis alone, pairs, and full products, with all schedules, recomputations and balance losses.
std::vector<Case> fixed_cases();
std::vector<Case> random_cases(std::uint64_t seed, int count);

}  // namespace af::test
