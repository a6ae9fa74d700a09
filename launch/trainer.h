// The training loop: stages one after the other in one job, each a global batch, a step, a line of metrics at a time. Every rank runs it;
// rank 0 alone writes files and speaks.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include <fmt/core.h>

#include "launch/checkpoint_saver.h"
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
  // Newest that can be read; "": begun anew. Says what it passes over.
  bool resume(const RunOptions& options);
  void resume_from(const std::string& path);
  // The state as it stands becomes a checkpoint: durable on return, or while training goes on. One under way is waited for before.
  enum class Save { now, meanwhile };
  // False where the one that was waited for last failed.
  bool save(Save when, bool stage_finished);
  bool end_save();  // waits for the one under way
  bool report_save(const std::optional<SaveOutcome>& outcome);
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
  CheckpointSaver saver_;  // behind the model: it reads its state to the end
  AxisBytes sent_before_;
  double peak_tflops_ = 0;
  double flops_per_token_ = 0;  // of the stage under way, measured on its documents
};

}  // namespace af
