// The training loop: stages one after the other in one process, each a global batch, a step, a line of metrics at a time.
#pragma once
#include <memory>
#include <string>

#include "launch/checkpoint.h"
#include "launch/config.h"
#include "launch/datasets.h"
#include "launch/global_batch.h"
#include "launch/metrics.h"
#include "launch/run_ledger.h"
#include "launch/tensorboard.h"
#include "launch/validation.h"
#include "models/qwen3.h"

namespace af {

struct RunOptions {
  std::string resume = "auto";  // auto: the newest checkpoint in output_dir, if any; never; or a checkpoint's folder
  std::string only_stage;       // run this stage alone, from where the stage before ended
};

class Trainer {
 public:
  Trainer(const Config& config, const Device& device);
  void run(const RunOptions& options);

 private:
  struct Stage;  // what belongs to the stage under way: data stream, batch memory, validation

  void begin(const RunOptions& options);
  void load_initial_weights();
  void run_stage(const StageConfig& stage);
  void describe_stage(const StageConfig& stage) const;
  // One optimizer step; returns what is reported of it.
  StepMetrics step(const StageConfig& stage, Stage& current);
  // Loss of the global batch, its gradients added up.
  double forward_backward(const StageConfig& stage, Stage& current);
  void report_router(const StageConfig& stage, StepMetrics& metrics);
  void validate(Stage& current);
  void save(const StageConfig& stage, Stage& current, bool finished);
  double remaining_flops(const StageConfig& stage) const;
  CheckpointParts parts() { return {model_.config(), parameters_, optimizer_, model_.router_statistics()}; }

  const Config& config_;
  const std::vector<DatasetRecord> datasets_;
  Device device_;
  Arena scratch_;
  Context context_;
  ParameterSet parameters_;
  Qwen3Model model_;
  Optimizer optimizer_;
  Qwen3Model::Saved saved_;
  MetricsFile metrics_;
  RunLedger ledger_;
  std::optional<TensorBoardFile> tensorboard_;
  LogWindow window_;
  TrainingState state_;
  double peak_tflops_ = 0;
  double flops_per_token_ = 0;  // of the stage under way, measured on its documents
};

}  // namespace af
