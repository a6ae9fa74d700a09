#include "launch/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include <fmt/format.h>

#include "data/file.h"
#include "launch/bad_step.h"
#include "launch/config_checks.h"
#include "launch/config_yaml.h"
#include "launch/environment.h"
#include "launch/lr_schedule.h"
#include "models/flops.h"
#include "parallel/together.h"

namespace af {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void prepare_output_dir(const Config& config) {
  make_folder(config.output_dir);
  write_file(config.output_dir + "/config.yaml", to_yaml(config));
}

constexpr double kSaveBytesPerSecond = 100e6;  // of a rank, until a save has been measured

// Share of the tokens that are not masked.
double utilization(std::int64_t padding, std::int64_t tokens) { return 1 - double(padding) / double(tokens); }

// What stages before this one read on another cluster stays on record.
Json with_earlier(Json now, const Json& earlier) {
  const Json::Array known = now.array();
  if (earlier.is_array())
    for (const Json& dataset : earlier.array())
      if (std::none_of(known.begin(), known.end(), [&](const Json& one) { return *one.find("name") == *dataset.find("name"); })) now.push_back(dataset);
  return now;
}

}  // namespace

void Trainer::write(const JsonLine& line) {
  if (metrics_) metrics_->write(line);
}

struct Trainer::Stage {
  Stage(const Config& config, const StageConfig& stage, const Device& device, const Mesh& mesh, const StreamState& begin)
      : stream(sources_of(stage), stage.seq_length, config.seed, begin, Order::shuffled, stage.packing, stage.loss_roles),
        batch(device, stage.seq_length, stage.micro_batch_size, stage.num_microbatches(mesh.shape.dp), mesh.shape.cp, mesh.position.cp),
        validation(config.validation, stage, device, mesh) {}
  SequenceStream stream;
  std::vector<PackedSequence> sequences;
  GlobalBatch batch;
  Validation validation;
};

Trainer::Trainer(const Config& config, const RunOptions& options, const Device& device, const Comm& world)
    : config_(config), options_(options), world_(world), datasets_(dataset_records(of_stage(config, options.only_stage))), device_(device),
      stragglers_(world), time_(options.end), saver_(config.output_dir + "/checkpoints", {config.checkpoint.keep, config.checkpoint.keep_every, config.checkpoint.staging_bytes}) {
  together(world, [&] {
    if (!speaks()) return;
    prepare_output_dir(config);
    metrics_.emplace(config.output_dir + "/metrics.jsonl");
    ledger_.emplace(config.output_dir);
    if (config.logging.tensorboard) tensorboard_.emplace(config.output_dir + "/tensorboard");
    peak_tflops_ = config.runtime.peak_tflops > 0 ? config.runtime.peak_tflops : measure_peak_tflops(device, compute_dtype(config.runtime));
  });
}

int Trainer::run() {
  write(event("run_begin").add("ranks", std::int64_t(world_.size())).add("tokenizer_sha256", datasets_.front().info.tokenizer_sha256)
            .add("datasets", to_json_lines(datasets_)));
  if (stop_wanted(TimeLimit::Next::moment)) return end_early();
  begin();
  begun_iteration_ = saved_iteration_ = state_.iteration;
  while (!run_stages()) {
    if (!spike_) return end_early();
    if (!go_back()) return kExitFailed;
  }
  return kExitDone;
}

bool Trainer::run_stages() {
  state_.tokenizer_sha256 = datasets_.front().info.tokenizer_sha256;
  state_.datasets = with_earlier(to_json(datasets_), state_.datasets);
  const std::size_t first = std::size_t(state_.stage) + (state_.stage_finished ? 1 : 0), only = only_stage();
  if (first == config_.stages.size()) say("all stages are finished in {}: nothing to do\n", config_.output_dir);
  else if (first > only) say("stage {} is finished in {}: nothing to do\n", options_.only_stage, config_.output_dir);
  if (first > only) return true;
  for (std::size_t i = first; i < config_.stages.size(); ++i) {
    if (state_.stage != std::int64_t(i) || state_.stage_finished) {
      state_.stage = std::int64_t(i);
      state_.stage_iteration = 0;
      state_.stage_finished = false;
    }
    state_.stage_name = config_.stages[i].name;
    if (!run_stage(config_.stages[i])) return false;
    if (i == only) return true;
  }
  return true;
}

void Trainer::lay_out(const StageConfig& stage) {
  ParallelLayout layout = layout_of(config_.model, stage, world_.size());
  if (!model_) {
    model_ = std::make_unique<ParallelModel>(config_.model, device_, compute_dtype(config_.runtime), layout, world_);
    return;
  }
  if (same(layout, model_->layout())) return;
  auto begin = std::chrono::steady_clock::now();
  std::string from = describe(model_->layout());
  model_ = std::make_unique<ParallelModel>(*model_, layout, world_);
  say(" layout {} -> {} ({:.2f} s)\n", from, describe(layout), seconds_since(begin));
}

void Trainer::describe_stage(const StageConfig& stage) const {
  const ParallelLayout& layout = model_->layout();
  say("stage {}: {} iterations of {} x {} tokens in {} micro-batches, lr {:g} -> {:g}, rope_theta {:g}{}\n", stage.name, stage.train_iters(),
      stage.global_batch_size, stage.seq_length, stage.num_microbatches(layout.mesh.dp), stage.lr.lr, stage.lr.min_lr, stage.rope.theta,
      stage.rope.yarn ? fmt::format(", YaRN x{:g}", stage.rope.yarn->factor) : "");
  if (world_.size() > 1) say(" {} ranks: {}\n", world_.size(), describe(layout));
}

bool Trainer::run_stage(const StageConfig& stage) {
  lay_out(stage);
  describe_stage(stage);
  if (state_.stage_iteration == 0) {
    state_.stream.begin_mix();
    state_.recent_losses.clear();
  }
  const Mesh& mesh = model_->mesh();
  std::optional<Stage> current;
  together(world_, [&] { current.emplace(config_, stage, device_, mesh, state_.stream); });
  state_.stream = current->stream.state();
  time_.begin_stage(double(stage.tokens_per_iteration()));
  time_.expect_save(double(count_parameters(config_.model).total()) * 3 * double(size_of(accumulator_of(model_->parameters().dtype()))) /
                    world_.size() / kSaveBytesPerSecond);
  const std::int64_t total = state_.iteration - state_.stage_iteration + stage.train_iters();
  if (ledger_)
    ledger_->begin({state_.iteration, total, stage.name, config_.seed, stage.seq_length, stage.global_batch_size, stage.packing, sources_of(stage),
                    state_.stream});
  model_->begin_stage(stage.rope, stage.seq_length, stage.micro_batch_size, stage.num_microbatches(mesh.shape.dp),
                      {stage.recompute, stage.moe});
  stragglers_.begin(mesh.shape);
  write(event("stage_begin").add("stage", stage.name).add("iteration", state_.iteration).add("layout", describe(model_->layout())));

  bool save_due = false;
  auto last = [&] { return state_.stage_iteration >= stage.train_iters(); };
  auto due = [&](std::int64_t interval) { return interval > 0 && state_.iteration % interval == 0; };
  auto evaluated = [&] { return !(last() || due(config_.validation.eval_interval)) || validate(*current); };
  if (stop_wanted(TimeLimit::Next::step)) return false;
  if (config_.runtime.loss_spike_factor > 0 && lineage_.empty()) save(Save::now, false);  // a run's first: there is always one to go back to
  // Where a run goes on, a stop may have cut the evaluation short.
  if (state_.stage_iteration > 0 && !evaluated()) return false;
  while (!last()) {
    report(step(stage, *current));
    if (state_.iteration % config_.logging.log_interval == 0 || last() || stop_)
      if (speaks()) say("{}\n", window_.line(total, remaining_flops(stage)));
    report_save(saver_.poll());
    if (spike_) return false;
    if (stop_ || bad_steps_ >= config_.runtime.max_bad_steps || !evaluated()) return false;
    save_due = save_due || due(config_.checkpoint.save_interval) || (retry_at_ > 0 && state_.iteration >= retry_at_);
    if (last() || !save_due || bad_steps_ > 0) continue;  // in a row of bad steps nobody shall go on
    save_due = false;
    save(config_.checkpoint.async_save ? Save::meanwhile : Save::now, false);
    if (stop_wanted(TimeLimit::Next::step)) return false;
  }
  state_.stream.forget_ahead();  // of a stage that was made shorter
  if (!save(Save::now, true) && &stage == &config_.stages.back())
    throw InternalError(fmt::format("the last checkpoint of {} could not be saved: {}; started again, the run goes on from the one before", config_.output_dir,
                                    save_error_));
  JsonLine end = event("stage_end").add("stage", stage.name).add("iteration", state_.iteration);
  if (stage.packing == Packing::best_fit) {
    const double share = utilization(state_.stream.padding(), state_.stream.sequences_since_mix_change * stage.seq_length);
    say(" stage {}: {:.2f} % of its tokens are documents', the others masked\n", stage.name, 100 * share);
    end.add("packing_utilization", share);
  }
  write(end);
  return true;
}

bool Trainer::stop_wanted(TimeLimit::Next next) {
  double code = own_stop(next);
  world_.all_reduce(Tensor(&code, DType::f64, {1}), Reduction::max).wait();
  stop_ = int(code);
  return stop_ != 0;
}

int Trainer::end_early() {
  end_save();
  if (!stop_) {
    const std::int64_t stopped_at = state_.iteration;
    restore_good_state();
    if (state_.iteration > saved_iteration_) save(Save::now, false);
    say("stopped: {} steps in a row had no finite loss and gradient (runtime.max_bad_steps). Nothing was learned from them; the run can go on from before"
        " them, iteration {}{}. A lower learning rate may help, or other data\n",
        bad_steps_, state_.iteration, lineage_.empty() ? ", which is its beginning" : ": " + lineage_.back());
    write(event("stop").add("reason", "bad steps").add("stage", state_.stage_name).add("iteration", stopped_at));
    return kExitFailed;
  }
  if (stop_ == kTimeIsUp && state_.iteration == begun_iteration_) {
    say("stopped by the time limit, which leaves no time for a step and a save: give the job more\n");
    return kExitFailed;  // started again it would come no further
  }
  if (state_.iteration > saved_iteration_ && !save(Save::now, false)) {
    say("stopped by {} after iteration {}, which could not be saved: {}\n", stop_reason(stop_), state_.iteration, save_error_);
    return kExitFailed;
  }
  world_.barrier().wait();  // nobody is gone before all is on the disk
  say("stopped by {} after iteration {}{}; started again with --resume auto (the default) it goes on from there\n", stop_reason(stop_),
      state_.iteration, state_.iteration > 0 ? ", which is saved" : "");
  write(event("stop").add("reason", stop_reason(stop_)).add("stage", state_.stage_name).add("iteration", state_.iteration));
  return kExitRequeue;
}

void Trainer::keep_good_state() {
  if (bad_steps_ > 0) return;
  good_.state = state_;
  good_.expert_counts.clear();
  for (const RouterStatistics& layer : model_->router_statistics()) good_.expert_counts.push_back(layer.previous_counts);
}

void Trainer::restore_good_state() {
  state_ = good_.state;
  for (std::size_t i = 0; i < good_.expert_counts.size(); ++i) model_->set_previous_counts(i, good_.expert_counts[i]);
}

StepMetrics Trainer::step(const StageConfig& stage, Stage& current) {
  keep_good_state();
  auto begin = std::chrono::steady_clock::now();
  waited_before_ = world_.seconds_waited();
  const Mesh& mesh = model_->mesh();
  StepMetrics metrics;
  metrics.learning_rate = learning_rate(stage.lr, stage.steps(), state_.stage_iteration);
  OptimizerSettings optimizer = stage.optimizer.settings;
  optimizer.weight_decay = weight_decay(stage.optimizer, stage.steps(), state_.stage_iteration);

  const std::int64_t first_sequence = state_.stream.consumed_sequences;
  current.stream.next(stage.global_batch_size, mesh.position.dp, mesh.shape.dp, current.sequences);
  current.batch.assign(current.sequences);
  StepLoss loss = model_->forward_backward(current.batch, {stage.recompute, stage.moe});
  metrics.lm_loss = loss.lm_loss;
  report_router(stage, metrics);
  OptimizerResult result = model_->update(optimizer, metrics.learning_rate);

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
  metrics.params_norm = model_->optimizer().params_norm(model_->context());
  metrics.global_batch_size = stage.global_batch_size;
  metrics.tokens = stage.tokens_per_iteration();
  metrics.model_flops = model_flops(config_.model, double(metrics.tokens), loss.sum_squared_lengths);
  metrics.devices = world_.size();
  metrics.peak_tflops = peak_tflops_;
  metrics.skipped = result.skipped;
  metrics.nan = !std::isfinite(metrics.lm_loss) || !std::isfinite(result.grad_norm);
  bad_steps_ = result.skipped ? bad_steps_ + 1 : 0;
  if (result.skipped) report_bad_step(stage, current, metrics, first_sequence);
  watch_loss(stage, metrics, first_sequence);
  time_.stepped(seconds_since(begin));
  gather_measures(metrics, begin);
  metrics.iteration_time_ms = seconds_since(begin) * 1e3;
  flops_per_token_ = metrics.model_flops / double(metrics.tokens);
  return metrics;
}

void Trainer::report_bad_step(const StageConfig& stage, const Stage& current, const StepMetrics& metrics, std::int64_t first_sequence) {
  const std::vector<std::int64_t> bad = bad_sequences(*model_, current.sequences, stage.micro_batch_size, first_sequence, stage.global_batch_size);
  if (!speaks()) return;
  const StepContents contents = replay_step(config_.output_dir, state_.iteration);
  say(" iteration {} is skipped, {} in a row: lm loss {}, grad norm {}; {} of its {} sequences: {} (af_data replay --step {} {})\n", state_.iteration,
      bad_steps_, metrics.lm_loss, metrics.grad_norm, bad.empty() ? stage.global_batch_size : std::int64_t(bad.size()), stage.global_batch_size,
      documents_text(contents, bad), state_.iteration, config_.output_dir);
  write(event("bad_step").add("stage", stage.name).add("iteration", state_.iteration).add("in_a_row", bad_steps_)
            .add("loss_is_finite", bool(std::isfinite(metrics.lm_loss))).add("sequences", documents_json(contents, bad)));
}

bool Trainer::validate(Stage& current) {
  const auto results = current.validation.run(*model_, [&] { return stop_wanted(TimeLimit::Next::moment); });
  if (!results) return false;
  for (const ValidationResult& result : *results) {
    say("{}\n", log_line(result, state_.iteration));
    JsonLine line = event("validation").add("stage", state_.stage_name).add("iteration", state_.iteration);
    add_to(line, result);
    write(line);
    if (tensorboard_) tensorboard_->write(result, state_.iteration, state_.consumed_samples);
  }
  return true;
}

bool Trainer::save(Save when, bool stage_finished) {
  end_save();
  state_.stage_finished = stage_finished;
  std::vector<RouterStatistics> router = model_->router_statistics();
  model_->gatherer().finish();
  saver_.begin(state_, {model_->config(), model_->parameters(), model_->optimizer(), router, model_->mesh()}, to_yaml(config_));
  return when == Save::meanwhile || end_save();
}

// In steps, not in seconds: all ranks try again at the same one.
std::int64_t Trainer::retry_iteration() const {
  const std::int64_t interval = config_.checkpoint.save_interval;
  return interval > 0 ? state_.iteration + std::max<std::int64_t>(1, interval / 10) : 0;
}

bool Trainer::end_save() { return report_save(saver_.finish()); }

bool Trainer::report_save(const std::optional<SaveOutcome>& outcome) {
  if (!outcome) return true;
  save_error_ = outcome->error;
  retry_at_ = save_error_.empty() ? 0 : retry_iteration();
  if (!outcome->error.empty()) {
    say("warning: the checkpoint {} could not be saved: {}; the run goes on, a checkpoint is tried again {}\n", outcome->path, outcome->error,
        retry_at_ > 0 ? fmt::format("after iteration {}", retry_at_) : "at the end of the next stage");
    write(event("checkpoint_failed").add("stage", state_.stage_name).add("iteration", outcome->iteration).add("path", outcome->path).add("reason", outcome->error));
    return false;
  }
  saved_iteration_ = outcome->iteration;
  lineage_.push_back(outcome->path);
  time_.saved(outcome->seconds);
  say(" saved {} ({:.2f} s, training waited {:.2f} s)\n", outcome->path, outcome->seconds, outcome->blocked_seconds);
  write(event("checkpoint").add("stage", state_.stage_name).add("iteration", outcome->iteration).add("path", outcome->path)
            .add("seconds", outcome->seconds).add("blocked_seconds", outcome->blocked_seconds));
  return true;
}

}  // namespace af
