// What a step is reported as: a line of metrics.jsonl, and Megatron's log line.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "data/append_file.h"
#include "launch/json_line.h"

namespace af {

struct TokensPerExpert {  // over all experts of all MoE layers, in this step's global batch
  double min = 0, max = 0;
  double cv = 0;  // standard deviation / mean
};

struct SentBytes {  // by all ranks together in this step, per kind of group (experts: etp with ep, edp with dp)
  std::int64_t tp = 0, cp = 0, ep = 0, dp = 0, pp = 0;
};

struct RankTimes {  // seconds of this step in which a rank did not wait for others
  double median = 0, max = 0;
  int slowest = 0;  // the rank of the maximum
};

struct StepMetrics {
  std::int64_t iteration = 0;  // from 1, counted on across stages
  std::string stage;
  std::int64_t consumed_samples = 0, consumed_tokens = 0;  // after this step, across stages; with the masked tokens that fill sequences up
  std::optional<double> packing_utilization;               // best_fit: share of this step's tokens that are a document's, not masked
  double lm_loss = 0;                                      // nats per counted target
  std::optional<double> load_balancing_loss;               // what the gradient saw, coefficient included; none: dense, or no such loss
  std::optional<double> load_balancing_loss_current_f;     // global_aux_loss with this step's own token shares
  std::optional<double> z_loss;                            // coefficient included
  double grad_norm = 0;                                    // before clipping
  double params_norm = 0;                                  // after the step
  double learning_rate = 0;                                // of this step
  std::int64_t global_batch_size = 0;
  double iteration_time_ms = 0;
  std::int64_t tokens = 0;  // of this step, for tokens_per_second
  double model_flops = 0;   // of this step, all ranks (models/flops.h)
  std::int64_t devices = 1;
  double peak_tflops = 0;  // per device; 0: not known, no MFU
  std::int64_t memory_bytes = 0;  // the most that a rank has taken so far
  SentBytes comm_bytes;
  std::vector<double> pipeline_idle;  // of each pipeline stage: share of forward and backward in which it waited for others
  std::optional<RankTimes> rank_times;  // none: one rank
  std::optional<TokensPerExpert> tokens_per_expert;
  std::optional<double> tokens_dropped;     // choices beyond their expert's capacity, where there is one, over all MoE layers
  std::optional<double> experts_in_rounds;  // passes (of a MoE layer, a micro-batch and the ranks that exchange tokens) beyond the planned memory
  std::int64_t skipped = 0, nan = 0;  // 1: this step was skipped; its loss or gradient was not finite

  double tokens_per_second() const { return double(tokens) / iteration_time_ms * 1e3; }
  double tflops_per_gpu() const { return model_flops / double(devices) / iteration_time_ms * 1e-9; }
  double mfu() const { return tflops_per_gpu() / peak_tflops; }  // 0..1
};

JsonLine to_json(const StepMetrics& step);

// metrics.jsonl, opened for appending; each line is on the disk's queue (flushed) when write() returns, or waits while the disk is full
// (data/append_file.h). A line that a killed process left unfinished is closed first, so that it spoils no other.
class MetricsFile {
 public:
  explicit MetricsFile(const std::string& path);
  void write(const StepMetrics& step) { write(to_json(step)); }
  // Events begin with their name: write(event("stage_begin").add("stage", name)).
  void write(const JsonLine& line);
  const AppendFile& file() const { return file_; }

 private:
  AppendFile file_;
};

JsonLine event(std::string_view name);

// Collects the steps between two log lines: times, tokens, FLOPs and counts are summed, losses averaged, the rest is the last step's.
class LogWindow {
 public:
  void add(const StepMetrics& step);
  std::int64_t steps() const { return steps_; }
  // Megatron's line for the steps since the last call; `remaining_flops` is what is still to be done in all stages (plan.h), for the ETA.
  std::string line(std::int64_t total_iterations, double remaining_flops);

 private:
  std::int64_t steps_ = 0;
  StepMetrics sum_;  // of the steps so far where they are summed, else of the last one
};

std::string duration(double seconds);  // "3d 04:05:06", "04:05:06"

}  // namespace af
