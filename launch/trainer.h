// The training loop: stages one after the other in one job, each a global batch, a step, a line of metrics at a time. Every rank runs it;
// rank 0 alone writes files and speaks.
#pragma once
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include <fmt/core.h>

#include "launch/checkpoint_saver.h"
#include "launch/config.h"
#include "launch/datasets.h"
#include "launch/layout.h"
#include "launch/metrics.h"
#include "launch/run_ledger.h"
#include "launch/stop.h"
#include "launch/stragglers.h"
#include "launch/tensorboard.h"
#include "launch/validation.h"

namespace af {

struct RunOptions {
  std::string resume = "auto";  // auto: the newest checkpoint in output_dir, if any; never; or a checkpoint's folder
  std::string only_stage;       // run this stage alone, from where the stage before ended; only its datasets are opened
  TimeLimit::Clock::time_point end = TimeLimit::Clock::time_point::max();  // the job's time is over; saved before
};

class Trainer {
 public:
  Trainer(const Config& config, const RunOptions& options, const Device& device, const Comm& world);
  // The program's exit code: kExitDone, kExitRequeue (stopped, all is saved) or kExitFailed (the training itself goes wrong; said).
  int run();

 private:
  struct Stage;  // what belongs to the stage under way: data stream, batch memory, validation

  void begin();
  bool run_stages();  // whether all that is wanted is done; else as run_stage()
  void load_initial_weights();
  bool run_stage(const StageConfig& stage);  // whether it is finished; else spike_, stop_ or bad_steps_ say why not
  // The model in the stage's layout: made, or what the stage before trained moved to it.
  void lay_out(const StageConfig& stage);
  void describe_stage(const StageConfig& stage) const;
  // What a bad step is not to change is kept, or becomes what it was.
  void keep_good_state();
  void restore_good_state();
  // One optimizer step; returns what is reported of it.
  StepMetrics step(const StageConfig& stage, Stage& current);
  void report_router(const StageConfig& stage, StepMetrics& metrics);
  // What all ranks measured: bytes sent, idle time of each pipeline stage, memory, times; and whether one is asked to stop.
  void gather_measures(StepMetrics& metrics, std::chrono::steady_clock::time_point begin);
  void report_times(StepMetrics& metrics, std::span<const double> seconds);  // that each rank computed
  void report(const StepMetrics& metrics);
  void watch_files();  // says when lines begin to wait for room on the disk, and when they need not any more
  // Newest that can be read; "": begun anew. Says what it passes over.
  bool resume();
  // Whether the configuration is the one that it was made with.
  bool resume_from(const std::string& path);
  void load(const std::string& path);  // into the layout of the stage that comes next there
  // Checkpoints of this directory that are not on the way to where the run begins, `from` ("": anew), go out of the way: else a restart would
  // go on from them, and they would count among those that are kept. `latest` points to `from`, if it is one of them. Collective.
  void set_aside_others(const std::string& from);
  // UserError where --stage cannot go on from there.
  void check_stage(const std::string& path, const TrainingState& saved) const;
  std::size_t only_stage() const;  // its index; that of no stage where all are wanted
  // The state as it stands becomes a checkpoint: durable on return, or while training goes on. One under way is waited for before.
  enum class Save { now, meanwhile };
  // False where the one that was waited for last failed.
  bool save(Save when, bool stage_finished);
  std::int64_t retry_iteration() const;  // of a save that has just failed; 0: none before the next stage's end
  bool end_save();  // waits for the one under way
  bool report_save(const std::optional<SaveOutcome>& outcome);
  // Whether all of it was done.
  bool validate(Stage& current);
  // A step was skipped: says what it was made of. Collective.
  void report_bad_step(const StageConfig& stage, const Stage& current, const StepMetrics& metrics, std::int64_t first_sequence);
  int own_stop(TimeLimit::Next next) const { return stop_signal() ? stop_signal() : time_.up(TimeLimit::Clock::now(), next) ? kTimeIsUp : 0; }
  // Whether any rank found a reason to stop now, into stop_ (after a step gather_measures() has done it). Collective.
  bool stop_wanted(TimeLimit::Next next);
  // Whether a step that was taken is a spike: then spike_ says so.
  void watch_loss(const StageConfig& stage, const StepMetrics& metrics, std::int64_t first_sequence);
  // Back behind the spike, without its samples; false: there is no such way, and it has been said. Collective.
  bool go_back();
  // The newest checkpoint of this run that had not been given that sequence, loaded. Those passed over are no longer of this run: `newer`
  // ones, and `damaged` ones, which has been said. "": none.
  std::string load_before(std::int64_t sequence, std::vector<std::string>& newer, std::vector<std::string>& damaged);
  bool is_own(const std::string& checkpoint) const;  // in this run's directory
  void set_aside(const std::string& checkpoint);     // and says so; rank 0
  // The run ends before its work does: saves what is not saved, and says how to go on. Collective.
  int end_early();
  double remaining_flops(const StageConfig& stage) const;
  bool speaks() const { return world_.rank() == 0; }
  void write(const JsonLine& line);
  template <class... Args>
  void say(fmt::format_string<Args...> format, Args&&... args) const {
    if (!speaks()) return;
    const std::string text = fmt::format(format, std::forward<Args>(args)...);
    std::fwrite(text.data(), 1, text.size(), stdout);  // a log that nobody can write is no reason to stop
    std::fflush(stdout);
  }

  const Config& config_;
  const RunOptions options_;
  Comm world_;
  const std::vector<DatasetRecord> datasets_;
  Device device_;
  std::unique_ptr<ParallelModel> model_;
  std::optional<MetricsFile> metrics_;  // rank 0
  std::optional<RunLedger> ledger_;
  std::optional<TensorBoardFile> tensorboard_;
  bool files_wait_ = false;  // for room on the disk
  LogWindow window_;
  TrainingState state_;
  Stragglers stragglers_;
  TimeLimit time_;
  int stop_ = 0;                // what the ranks agreed on (launch/stop.h)
  std::int64_t bad_steps_ = 0;  // in a row
  struct {
    TrainingState state;
    std::vector<std::vector<std::int64_t>> expert_counts;  // by layer
  } good_;  // before the bad steps in a row; parameters and optimizer are as they were then
  std::optional<LossSpike> spike_;
  std::string save_error_;      // of the last save; "": none
  std::int64_t retry_at_ = 0;   // the iteration after which a failed save is tried again, if no regular one comes before; 0: none
  std::vector<std::string> lineage_;  // checkpoints that this run went through, oldest first
  std::int64_t begun_iteration_ = 0, saved_iteration_ = 0;  // where this run began; what the newest checkpoint has
  CheckpointSaver saver_;  // behind the model: it reads its state to the end
  AxisBytes sent_before_;
  double waited_before_ = 0;
  double peak_tflops_ = 0;
  double flops_per_token_ = 0;  // of the stage under way, measured on its documents
};

}  // namespace af
