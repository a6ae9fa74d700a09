// Validation: the mean loss of held-out sources, each by itself, always on the same sequences.
#pragma once
#include <string>
#include <vector>

#include "launch/config.h"
#include "launch/global_batch.h"
#include "models/qwen3.h"

namespace af {

struct ValidationResult {
  std::string name;
  double lm_loss = 0;  // nats per counted target
  std::int64_t targets = 0, sequences = 0;
};

// The first eval_iters * global_batch_size sequences of each source (fewer where it has fewer), in file order.
class Validation {
 public:
  Validation(const ValidationConfig& config, const StageConfig& stage, const Device& device);
  std::vector<ValidationResult> run(const Context& context, Qwen3Model& model);

 private:
  const ValidationConfig& config_;
  const StageConfig& stage_;
  std::vector<std::int64_t> sequences_;  // of each source
  GlobalBatch batch_;
};

}  // namespace af
