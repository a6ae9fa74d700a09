// The training loop: stages one after the other in one job, each a global batch, a step, a line of metrics at a time. Every rank runs it;
// rank 0 alone writes files and speaks.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include <fmt/core.h>

#include "launch/checkpoint.h"
#include "launch/config.h"
#include "launch/datasets.h"
#include "launch/layout.h"
#include "launch/metrics.h"
#include "launch/run_ledger.h"
#include "launch/tensorboard.h"
#include "launch/validation.h"

namespace af {

struct RunOptions {
  std::string resume = "auto";  // auto: the newest checkpoint in output_dir, if any; never; or a checkpoint's folder
  std::string only_stage;       // run this stage alone, from where the stage before ended
};

class Trainer {
 public:
  Trainer(const Config& config, const Device& device, const Comm& world);
  void run(const RunOptions& options);

 private:
  struct Stage;  // what belongs to the stage under way: data stream, batch memory, validation

  void begin(const RunOptions& options);
  void load_initial_weights();
  void run_stage(const StageConfig& stage);
  // The model in the stage's layout: made, or what the stage before trained moved to it.
  void lay_out(const StageConfig& stage);
  void describe_stage(const StageConfig& stage) const;
  // One optimizer step; returns what is reported of it.
  StepMetrics step(const StageConfig& stage, Stage& current);
  void report_router(const StageConfig& stage, StepMetrics& metrics);
  // What all ranks measured: bytes sent, idle time of each pipeline stage, memory.
  void gather_measures(StepMetrics& metrics);
  void report(const StepMetrics& metrics);
  void validate(Stage& current);
  void save(const StageConfig& stage, bool finished);
  double remaining_flops(const StageConfig& stage) const;
  bool speaks() const { return world_.rank() == 0; }
  void write(const JsonLine& line);
  template <class... Args>
  void say(fmt::format_string<Args...> format, Args&&... args) const;

  const Config& config_;
  Comm world_;
  const std::vector<DatasetRecord> datasets_;
  Device device_;
  std::unique_ptr<ParallelModel> model_;
  std::optional<MetricsFile> metrics_;  // rank 0
  std::optional<RunLedger> ledger_;
  std::optional<TensorBoardFile> tensorboard_;
  LogWindow window_;
  TrainingState state_;
  AxisBytes sent_before_;
  double peak_tflops_ = 0;
  double flops_per_token_ = 0;  // of the stage under way, measured on its documents
};

}  // namespace af
