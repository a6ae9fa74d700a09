// What a run is told: plain structs that mirror the YAML (names and defaults; launch/config_yaml.h reads and prints them).
// A component gets its section, never the whole. Derived values are functions. Paths are relative to the working directory.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/document.h"
#include "data/packing.h"
#include "models/config.h"
#include "models/pass.h"
#include "parallel/optimizer.h"
#include "parallel/schedule.h"

namespace af {

struct InitConfig {
  enum class From { random, hf_checkpoint, checkpoint };
  From from = From::random;  // random: normal(0, initializer_range) by (seed, name, index); norms 1
  std::string path;          // hf_checkpoint: folder with safetensors; checkpoint: folder written by af_train (weights only, a fresh optimizer)
  std::string where;         // "run.yaml:12:7" or "command line", for messages that come later than parsing
};

struct TokenizerConfig {
  std::string path;   // "bytes", or a folder with tokenizer.json; empty: not given. Checked against the datasets, copied by export-hf
  std::string where;  // "run.yaml:12:7" or "command line", for messages that come later than parsing
};

// How the processes are laid out (Megatron's names). The data-parallel size is what they leave: processes / (TP x PP x CP).
struct ParallelConfig {
  std::int64_t tensor_model_parallel_size = 1;
  std::int64_t pipeline_model_parallel_size = 1;
  std::int64_t virtual_pipeline_model_parallel_size = 1;  // chunks of layers per rank
  std::int64_t context_parallel_size = 1;
  std::int64_t expert_model_parallel_size = 1;
  std::int64_t expert_tensor_parallel_size = 0;  // 0, YAML `auto`: the tensor-parallel size, as in Megatron
  bool sequence_parallel = true;                 // where TP > 1
  std::string pipeline_model_parallel_layout;    // empty: even (parallel/pipeline_layout.h)
  bool overlap_grad_reduce = true, overlap_param_gather = true;
  std::string where;  // of its sizes; empty: none is given
};

struct PipelineConfig {
  ScheduleKind schedule = ScheduleKind::one_f_one_b;
  std::int64_t microbatch_group_size_per_vp_stage = 0;  // 0, YAML `auto`: the pipeline's size
};

// AdamW, decoupled weight decay, none on norms. Moments and step count go on across stages.
struct OptimizerConfig {
  enum class WeightDecayStyle { constant, linear, cosine };
  OptimizerSettings settings;              // adam_beta1, adam_beta2, adam_eps, weight_decay (at the stage's start), clip_grad
  std::optional<double> end_weight_decay;  // reached at the stage's last iteration; given exactly where the style is not constant
  WeightDecayStyle weight_decay_incr_style = WeightDecayStyle::constant;
};

// What Qwen3 was trained with.
inline constexpr BalanceSettings kDefaultMoe = {BalanceType::global_aux_loss, 1e-3, 0};

enum class LrDecayStyle { constant, linear, cosine, inverse_square_root, wsd };
enum class WsdDecayStyle { linear, cosine, exponential, minus_sqrt };

// Counted from the stage's start (launch/lr_schedule.h).
struct LrConfig {
  double lr = 0;      // the maximum; required
  double min_lr = 0;  // where the decay ends
  LrDecayStyle lr_decay_style = LrDecayStyle::cosine;
  double lr_warmup_init = 0;                 // where the warm-up begins
  std::optional<double> lr_warmup_fraction;  // of the decay's length; at most one of the three; none: no warm-up
  std::optional<std::int64_t> lr_warmup_iters;
  std::optional<std::int64_t> lr_warmup_samples;
  std::optional<std::int64_t> lr_decay_iters;  // the iteration at which min_lr is reached; default: the stage's last
  WsdDecayStyle lr_wsd_decay_style = WsdDecayStyle::exponential;
  std::optional<std::int64_t> lr_wsd_decay_iters;  // length of WSD's last phase; required with WSD
};

struct DataSource {
  std::string path;   // HDF5 token dataset (af_data)
  std::string name;   // in metrics and ledger; default: the file's name without folder and ending
  double weight = 1;  // share of the stage's sequences, divided by the sum of the weights; not used in validation
  std::string where;  // "run.yaml:12:7" or "command line", for messages that come later than parsing
};

struct TrainLength {
  enum class Unit { tokens, samples, iters };
  Unit unit = Unit::iters;
  std::int64_t amount = 0;
};

// What learning_rate() needs to know of a stage.
struct StageSteps {
  std::int64_t train_iters = 0;        // iterations of this stage
  std::int64_t global_batch_size = 1;  // samples per iteration
};

// Sections that a stage may override hold here what is in force in this stage: the top-level section with the stage's
// keys on top of it (never the previous stage's).
struct StageConfig {
  std::string name;
  std::int64_t seq_length = 0;
  TrainLength length;                  // train_tokens, train_samples or train_iters
  std::int64_t micro_batch_size = 1;   // sequences per forward and backward
  std::int64_t global_batch_size = 1;  // sequences per optimizer step
  LrConfig lr;
  std::vector<DataSource> data;
  Packing packing = Packing::sequential;
  std::optional<RoleSet> loss_roles;  // SFT: only targets of these roles count, such as [thought, action, answer]; not given: all do
  RopeSettings rope;            // rope_theta, rope_scaling; default: the model's
  RecomputeSettings recompute;  // the modules' flags are set with `selective` only
  BalanceSettings moe = kDefaultMoe;
  OptimizerConfig optimizer;
  ParallelConfig parallel;
  PipelineConfig pipeline;
  std::string where;  // "run.yaml:12:7" or "command line", for messages that come later than parsing

  // Whole optimizer steps: what is asked, rounded down (as Megatron does with train_samples).
  std::int64_t train_iters() const {
    switch (length.unit) {
      case TrainLength::Unit::tokens:
        return length.amount / tokens_per_iteration();
      case TrainLength::Unit::samples:
        return length.amount / global_batch_size;
      case TrainLength::Unit::iters:
        break;
    }
    return length.amount;
  }
  std::int64_t num_microbatches(std::int64_t data_parallel_size) const { return global_batch_size / (micro_batch_size * data_parallel_size); }
  std::int64_t tokens_per_iteration() const { return global_batch_size * seq_length; }
  StageSteps steps() const { return {train_iters(), global_batch_size}; }
};

struct ValidationConfig {
  std::vector<DataSource> data;    // each evaluated and reported by itself
  std::int64_t eval_interval = 0;  // iterations between evaluations, besides each stage's end; 0: only there
  std::int64_t eval_iters = 10;    // global batches per evaluation and source
};

struct CheckpointConfig {
  std::int64_t save_interval = 0;  // iterations between checkpoints, besides each stage's end; 0: only there
  std::int64_t keep = 0;           // newest checkpoints kept, stage ends besides; 0: all
  std::int64_t keep_every = 0;     // checkpoints of every so many iterations are kept for ever; 0: none
  bool async_save = true;          // training goes on while a checkpoint is written; stage ends are waited for
  std::int64_t staging_bytes = 256'000'000;  // per rank: what the optimizer may copy of the state that is not yet written
};

struct LoggingConfig {
  std::int64_t log_interval = 1;  // iterations per log line; metrics.jsonl and TensorBoard get every iteration
  bool tensorboard = true;        // event files in output_dir/tensorboard
};

struct RuntimeConfig {
  enum class DeviceChoice { automatic, cpu };
  enum class Precision { automatic, fp32, bf16, fp64 };
  DeviceChoice device = DeviceChoice::automatic;  // auto: the CPU
  Precision precision = Precision::automatic;     // auto: fp32 on the CPU. bf16: fp32 master weights and gradients. fp64: for tests
  std::int64_t threads_per_rank = 0;              // 0, YAML `auto`: all cores that the process may use. No result depends on it
  double distributed_timeout_minutes = 10;        // an operation between ranks that takes longer ends the job
  double heartbeat_seconds = 15;                  // a rank silent for so long (after MPI_Init) ends the job; 0: never (for debuggers)
  std::int64_t max_bad_steps = 5;                 // so many steps in a row without a finite loss and gradient end the run
  double loss_spike_factor = 0;                   // a step whose lm loss is above so many times the median of the last ones is a spike, and
                                                  // the run goes back to a checkpoint and on without its samples; 0: it does not
  std::int64_t loss_spike_window = 64;            // how many losses that median is of; it begins anew with each stage
  std::int64_t loss_spike_skip = 1;               // steps whose samples are left out: the spike's, and those before it
  double peak_tflops = 0;                         // for the MFU, per device; 0, YAML `auto`: measured at the start
};

struct Config {
  std::string output_dir;
  std::uint64_t seed = 1234;  // of initial weights and data order
  ModelConfig model;          // from hf_config, a preset, or fields in place
  InitConfig init;
  TokenizerConfig tokenizer;
  ParallelConfig parallel;
  PipelineConfig pipeline;
  RecomputeSettings recompute;
  OptimizerConfig optimizer;
  BalanceSettings moe = kDefaultMoe;
  std::vector<StageConfig> stages;
  ValidationConfig validation;
  CheckpointConfig checkpoint;
  LoggingConfig logging;
  RuntimeConfig runtime;
};

}  // namespace af
