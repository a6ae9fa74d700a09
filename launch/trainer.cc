#include "launch/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include <fmt/format.h>

#include "core/ops/elementwise.h"
#include "data/file.h"
#include "launch/config_yaml.h"
#include "launch/environment.h"
#include "launch/hf_checkpoint.h"
#include "launch/lr_schedule.h"
#include "models/flops.h"

namespace af {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

template <class... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
  fmt::print(format, std::forward<Args>(args)...);
  std::fflush(stdout);
}

std::string prepared_output_dir(const Config& config) {
  std::error_code error;
  std::filesystem::create_directories(config.output_dir, error);
  if (error) user_error("output_dir {}: cannot be created: {}", config.output_dir, error.message());
  write_file(config.output_dir + "/config.yaml", to_yaml(config));
  return config.output_dir;
}

ParameterSet& allocated(ParameterSet& set) {
  set.allocate();
  return set;
}

// Share of the tokens that are not masked.
double utilization(std::int64_t padding, std::int64_t tokens) { return 1 - double(padding) / double(tokens); }

std::vector<SourceSpec> sources_of(const StageConfig& stage) {
  std::vector<SourceSpec> sources;
  for (const DataSource& source : stage.data) sources.push_back({source.path, source.name, source.weight});
  return sources;
}

}  // namespace

struct Trainer::Stage {
  Stage(const Config& config, const StageConfig& stage, const Device& device, const StreamState& begin)
      : stream(sources_of(stage), stage.seq_length, config.seed, begin, Order::shuffled, stage.packing),
        batch(device, stage.seq_length, stage.micro_batch_size, stage.num_microbatches()),
        validation(config.validation, stage, device) {}
  SequenceStream stream;
  std::vector<PackedSequence> sequences;
  GlobalBatch batch;
  Validation validation;
};

Trainer::Trainer(const Config& config, const Device& device)
    : config_(config),
      datasets_(dataset_records(config)),
      device_(device),
      scratch_(device, "scratch"),
      context_{device, scratch_},
      parameters_(device, compute_dtype(config.runtime)),
      model_(config.model, device, parameters_),
      optimizer_(device, allocated(parameters_)),
      saved_(device, config.model.num_hidden_layers),
      metrics_(prepared_output_dir(config) + "/metrics.jsonl"),
      ledger_(config.output_dir),
      peak_tflops_(config.runtime.peak_tflops > 0 ? config.runtime.peak_tflops : measure_peak_tflops(device, parameters_.dtype())) {
  if (config.logging.tensorboard) tensorboard_.emplace(config.output_dir + "/tensorboard");
}

void Trainer::run(const RunOptions& options) {
  metrics_.write(event("run_begin").add("tokenizer_sha256", datasets_.front().info.tokenizer_sha256).add("datasets", to_json_lines(datasets_)));
  begin(options);
  state_.tokenizer_sha256 = datasets_.front().info.tokenizer_sha256;
  state_.datasets = to_json(datasets_);
  std::size_t first = std::size_t(state_.stage) + (state_.stage_finished ? 1 : 0);
  for (std::size_t i = first; i < config_.stages.size(); ++i) {
    if (state_.stage != std::int64_t(i) || state_.stage_finished) {
      state_.stage = std::int64_t(i);
      state_.stage_iteration = 0;
      state_.stage_finished = false;
    }
    state_.stage_name = config_.stages[i].name;
    if (!options.only_stage.empty() && options.only_stage != state_.stage_name)
      user_error("--stage {}: stage {} is not finished in {}; train it first", options.only_stage, state_.stage_name, config_.output_dir);
    run_stage(config_.stages[i]);
    if (!options.only_stage.empty()) return;
  }
  if (first >= config_.stages.size()) say("all stages are finished in {}: nothing to do\n", config_.output_dir);
}

// Weights and state: from a checkpoint of this run, or anew.
void Trainer::begin(const RunOptions& options) {
  std::string path = options.resume == "auto" ? latest_checkpoint(config_.output_dir + "/checkpoints") : options.resume == "never" ? "" : options.resume;
  if (path.empty()) {
    load_initial_weights();
    return;
  }
  state_ = load_checkpoint(context_, path, parts());
  if (state_.stage >= std::int64_t(config_.stages.size()) || config_.stages[std::size_t(state_.stage)].name != state_.stage_name)
    user_error("{}: was saved in stage {} (the {}. of its run), which this configuration does not have there", path, state_.stage_name, state_.stage + 1);
  if (const std::string& now = datasets_.front().info.tokenizer_sha256; state_.tokenizer_sha256 != now)
    user_error("{}: was trained on datasets of another tokenizer ({:.8}) than {} ({:.8}); resume with datasets of the same, or begin from the weights with init",
               path, state_.tokenizer_sha256, datasets_.front().path, now);
  say("resumed from {} (stage {}, iteration {})\n", path, state_.stage_name, state_.iteration);
  metrics_.write(event("resume").add("checkpoint", path).add("stage", state_.stage_name).add("iteration", state_.iteration));
}

void Trainer::load_initial_weights() {
  switch (config_.init.from) {
    case InitConfig::From::random: initialize(context_, parameters_, config_.seed, config_.model.initializer_range); break;
    case InitConfig::From::hf_checkpoint: import_hf(config_.init.path, config_.model, parameters_); break;
    case InitConfig::From::checkpoint: load_weights(context_, config_.init.path, parameters_); break;
  }
  optimizer_.reset_master(context_);
}

void Trainer::describe_stage(const StageConfig& stage) const {
  say("stage {}: {} iterations of {} x {} tokens in {} micro-batches, lr {:g} -> {:g}, rope_theta {:g}{}\n", stage.name, stage.train_iters(),
      stage.global_batch_size, stage.seq_length, stage.num_microbatches(), stage.lr.lr, stage.lr.min_lr, stage.rope.theta,
      stage.rope.yarn ? fmt::format(", YaRN x{:g}", stage.rope.yarn->factor) : "");
}

void Trainer::run_stage(const StageConfig& stage) {
  describe_stage(stage);
  model_.set_rope(context_, stage.rope, stage.seq_length);
  if (state_.stage_iteration == 0) state_.stream.begin_mix();
  Stage current(config_, stage, device_, state_.stream);
  state_.stream = current.stream.state();
  const std::int64_t total = state_.iteration - state_.stage_iteration + stage.train_iters();
  ledger_.begin({state_.iteration, total, stage.name, config_.seed, stage.seq_length, stage.global_batch_size, stage.packing, sources_of(stage),
                 state_.stream});
  scratch_ = Arena(device_, scratch_.name());  // what the stage before held: its sizes were others
  saved_.keep = Arena(device_, saved_.keep.name());
  saved_.routed = Arena(device_, "routed activations", model_.routed_bytes(stage.micro_batch_size * stage.seq_length, stage.recompute));
  metrics_.write(event("stage_begin").add("stage", stage.name).add("iteration", state_.iteration));

  while (state_.stage_iteration < stage.train_iters()) {
    StepMetrics metrics = step(stage, current);
    ledger_.step(state_.iteration, state_.stream);
    metrics_.write(metrics);
    if (tensorboard_) tensorboard_->write(metrics);
    window_.add(metrics);
    bool last = state_.stage_iteration == stage.train_iters();
    if (state_.iteration % config_.logging.log_interval == 0 || last) say("{}\n", window_.line(total, remaining_flops(stage)));
    auto due = [&](std::int64_t interval) { return interval > 0 && state_.iteration % interval == 0; };
    if (last || due(config_.validation.eval_interval)) validate(current);
    if (!last && due(config_.checkpoint.save_interval)) save(stage, current, false);
  }
  save(stage, current, true);
  JsonLine end = event("stage_end").add("stage", stage.name).add("iteration", state_.iteration);
  if (stage.packing == Packing::best_fit) {
    const double share = utilization(state_.stream.padding(), state_.stream.sequences_since_mix_change * stage.seq_length);
    say(" stage {}: {:.2f} % of its tokens are documents', the others masked\n", stage.name, 100 * share);
    end.add("packing_utilization", share);
  }
  metrics_.write(end);
}

double Trainer::forward_backward(const StageConfig& stage, Stage& current) {
  double scale = 1.0 / double(std::max<std::int64_t>(current.batch.counted_targets(), 1)), loss = 0;
  for (std::int64_t i = 0; i < current.batch.micro_batches(); ++i) {
    saved_.reset();
    Pass pass{context_, current.batch[i], saved_.keep, saved_.routed, Mode::train, stage.recompute, stage.moe, current.batch.micro_batches()};
    model_.forward(pass, scale, saved_);
    loss += sum(context_, saved_.token_loss);
    model_.backward(pass, saved_);
  }
  return loss * scale;
}

StepMetrics Trainer::step(const StageConfig& stage, Stage& current) {
  auto begin = std::chrono::steady_clock::now();
  StepMetrics metrics;
  metrics.learning_rate = learning_rate(stage.lr, stage.steps(), state_.stage_iteration);
  OptimizerSettings optimizer = stage.optimizer.settings;
  optimizer.weight_decay = weight_decay(stage.optimizer, stage.steps(), state_.stage_iteration);

  current.stream.next(stage.global_batch_size, 0, 1, current.sequences);
  current.batch.assign(current.sequences);
  metrics.lm_loss = forward_backward(stage, current);
  report_router(stage, metrics);
  OptimizerResult result = optimizer_.step(context_, optimizer, metrics.learning_rate);

  const std::int64_t padding = state_.stream.padding();
  state_.stream = current.stream.state();
  if (stage.packing == Packing::best_fit) metrics.packing_utilization = utilization(state_.stream.padding() - padding, stage.tokens_per_iteration());
  state_.iteration += 1;
  state_.stage_iteration += 1;
  state_.consumed_samples += stage.global_batch_size;
  state_.consumed_tokens += stage.tokens_per_iteration();
  state_.skipped += result.skipped;

  metrics.iteration = state_.iteration;
  metrics.stage = stage.name;
  metrics.consumed_samples = state_.consumed_samples;
  metrics.consumed_tokens = state_.consumed_tokens;
  metrics.grad_norm = result.grad_norm;
  metrics.params_norm = optimizer_.params_norm(context_);
  metrics.global_batch_size = stage.global_batch_size;
  metrics.tokens = current.batch.tokens();
  metrics.model_flops = model_flops(config_.model, double(metrics.tokens), current.batch.sum_squared_lengths());
  metrics.peak_tflops = peak_tflops_;
  metrics.memory_bytes = peak_resident_bytes();
  metrics.skipped = result.skipped;
  metrics.nan = !std::isfinite(metrics.lm_loss) || !std::isfinite(result.grad_norm);
  metrics.iteration_time_ms = seconds_since(begin) * 1e3;
  flops_per_token_ = metrics.model_flops / double(metrics.tokens);
  return metrics;
}

// Losses of the routers and tokens per expert; the step's counts become the previous ones.
void Trainer::report_router(const StageConfig& stage, StepMetrics& metrics) {
  double balance = 0, current_f = 0, z = 0, tokens = 0, squares = 0, experts = 0;
  TokensPerExpert load{INFINITY, 0, 0};
  for (RouterStatistics& layer : model_.router_statistics()) {
    if (layer.counts.empty()) continue;
    balance += layer.balance_loss_sum / double(layer.micro_batches);
    z += layer.z_loss_sum / double(layer.micro_batches);
    current_f += layer.loss_with_current_counts(stage.moe);
    for (std::int64_t n : layer.counts) {
      load.min = std::min(load.min, double(n));
      load.max = std::max(load.max, double(n));
      tokens += double(n);
      squares += double(n) * double(n);
      experts += 1;
    }
    layer.end_step();
  }
  if (experts == 0) return;
  double mean = tokens / experts;
  load.cv = std::sqrt(std::max(0.0, squares / experts - mean * mean)) / mean;
  metrics.tokens_per_expert = load;
  if (stage.moe.type != BalanceType::none) metrics.load_balancing_loss = balance;
  if (stage.moe.type == BalanceType::global_aux_loss) metrics.load_balancing_loss_current_f = current_f;
  if (stage.moe.z_loss_coeff != 0) metrics.z_loss = z;
}

void Trainer::validate(Stage& current) {
  for (const ValidationResult& result : current.validation.run(context_, model_)) {
    say("{}\n", log_line(result, state_.iteration));
    JsonLine line = event("validation").add("stage", state_.stage_name).add("iteration", state_.iteration);
    add_to(line, result);
    metrics_.write(line);
    if (tensorboard_) tensorboard_->write(result, state_.iteration, state_.consumed_samples);
  }
}

void Trainer::save(const StageConfig& stage, Stage&, bool finished) {
  auto begin = std::chrono::steady_clock::now();
  state_.stage_finished = finished;
  std::string path = save_checkpoint(config_.output_dir + "/checkpoints", state_, parts(), to_yaml(config_), config_.checkpoint.keep);
  double seconds = seconds_since(begin);
  say(" saved {} ({:.2f} s)\n", path, seconds);
  metrics_.write(event("checkpoint").add("stage", stage.name).add("iteration", state_.iteration).add("path", path).add("seconds", seconds));
}

double Trainer::remaining_flops(const StageConfig& stage) const {
  double tokens = double(stage.train_iters() - state_.stage_iteration) * double(stage.tokens_per_iteration());
  for (std::size_t i = std::size_t(state_.stage) + 1; i < config_.stages.size(); ++i)
    tokens += double(config_.stages[i].train_iters()) * double(config_.stages[i].tokens_per_iteration());
  return tokens * flops_per_token_;
}

}  // namespace af
