#include "launch/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include <fmt/format.h>

#include "data/file.h"
#include "launch/config_yaml.h"
#include "launch/environment.h"
#include "launch/hf_checkpoint.h"
#include "launch/lr_schedule.h"
#include "models/flops.h"
#include "parallel/together.h"

namespace af {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void prepare_output_dir(const Config& config) {
  std::error_code error;
  std::filesystem::create_directories(config.output_dir, error);
  if (error) user_error("output_dir {}: cannot be created: {}", config.output_dir, error.message());
  write_file(config.output_dir + "/config.yaml", to_yaml(config));
}

// Share of the tokens that are not masked.
double utilization(std::int64_t padding, std::int64_t tokens) { return 1 - double(padding) / double(tokens); }

std::vector<SourceSpec> sources_of(const StageConfig& stage) {
  std::vector<SourceSpec> sources;
  for (const DataSource& source : stage.data) sources.push_back({source.path, source.name, source.weight});
  return sources;
}

}  // namespace

template <class... Args>
void Trainer::say(fmt::format_string<Args...> format, Args&&... args) const {
  if (!speaks()) return;
  fmt::print(format, std::forward<Args>(args)...);
  std::fflush(stdout);
}

void Trainer::write(const JsonLine& line) {
  if (metrics_) metrics_->write(line);
}

struct Trainer::Stage {
  Stage(const Config& config, const StageConfig& stage, const Device& device, const Mesh& mesh, const StreamState& begin)
      : stream(sources_of(stage), stage.seq_length, config.seed, begin, Order::shuffled, stage.packing),
        batch(device, stage.seq_length, stage.micro_batch_size, stage.num_microbatches(mesh.shape.dp), mesh.shape.cp, mesh.position.cp),
        validation(config.validation, stage, device, mesh) {}
  SequenceStream stream;
  std::vector<PackedSequence> sequences;
  GlobalBatch batch;
  Validation validation;
};

Trainer::Trainer(const Config& config, const Device& device, const Comm& world)
    : config_(config), world_(world), datasets_(dataset_records(config)), device_(device),
      saver_(config.output_dir + "/checkpoints", {config.checkpoint.keep, config.checkpoint.keep_every, config.checkpoint.staging_bytes}) {
  together(world, [&] {
    if (!speaks()) return;
    prepare_output_dir(config);
    metrics_.emplace(config.output_dir + "/metrics.jsonl");
    ledger_.emplace(config.output_dir);
    if (config.logging.tensorboard) tensorboard_.emplace(config.output_dir + "/tensorboard");
    peak_tflops_ = config.runtime.peak_tflops > 0 ? config.runtime.peak_tflops : measure_peak_tflops(device, compute_dtype(config.runtime));
  });
}

void Trainer::run(const RunOptions& options) {
  write(event("run_begin").add("ranks", std::int64_t(world_.size())).add("tokenizer_sha256", datasets_.front().info.tokenizer_sha256)
            .add("datasets", to_json_lines(datasets_)));
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

// Weights and state: from a checkpoint of this run, or anew. In the layout of the stage that comes next.
void Trainer::begin(const RunOptions& options) {
  if (resume(options)) return;
  lay_out(config_.stages.front());
  load_initial_weights();
}

bool Trainer::resume(const RunOptions& options) {
  if (options.resume == "never") return false;
  if (options.resume != "auto") {
    resume_from(options.resume);
    return true;
  }
  std::vector<std::string> candidates;
  together(world_, [&] { candidates = checkpoints_in(config_.output_dir + "/checkpoints"); });
  std::string last;
  for (const std::string& path : candidates) {
    try {
      resume_from(path);
      return true;
    } catch (const DamagedCheckpoint& error) {
      last = error.what();
      say("skipped the checkpoint {}: {}\n", path, last);
      write(event("checkpoint_skipped").add("path", path).add("reason", last));
    }
  }
  if (!candidates.empty())
    user_error("{}/checkpoints: none of {} checkpoints can be read; to begin anew: --resume never", config_.output_dir, candidates.size());
  return false;
}

void Trainer::resume_from(const std::string& path) {
  TrainingState saved;
  together_or_damaged(world_, [&] {
    saved = read_state(path);
    if (saved.stage >= std::int64_t(config_.stages.size()) || config_.stages[std::size_t(saved.stage)].name != saved.stage_name)
      user_error("{}: was saved in stage {} (the {}. of its run), which this configuration does not have there", path, saved.stage_name, saved.stage + 1);
    if (const std::string& now = datasets_.front().info.tokenizer_sha256; saved.tokenizer_sha256 != now)
      user_error("{}: was trained on datasets of another tokenizer ({:.8}) than {} ({:.8}); resume with datasets of the same, or begin from the weights with init",
                 path, saved.tokenizer_sha256, datasets_.front().path, now);
  });
  std::size_t next = std::min(std::size_t(saved.stage) + (saved.stage_finished ? 1 : 0), config_.stages.size() - 1);
  lay_out(config_.stages[next]);
  std::vector<RouterStatistics> router = model_->router_statistics();
  state_ = load_checkpoint(model_->context(), path, {model_->config(), model_->parameters(), model_->optimizer(), router, model_->mesh()});
  for (std::size_t i = 0; i < router.size(); ++i) model_->set_previous_counts(i, router[i].previous_counts);
  say("resumed from {} (stage {}, iteration {})\n", path, state_.stage_name, state_.iteration);
  write(event("resume").add("checkpoint", path).add("stage", state_.stage_name).add("iteration", state_.iteration));
}

void Trainer::load_initial_weights() {
  Context& context = model_->context();
  ParameterSet& parameters = model_->parameters();
  together(world_, [&] {
    switch (config_.init.from) {
      case InitConfig::From::random: initialize(context, parameters, config_.seed, config_.model.initializer_range); break;
      case InitConfig::From::hf_checkpoint: import_hf(config_.init.path, config_.model, parameters); break;
      case InitConfig::From::checkpoint: load_weights(context, config_.init.path, parameters); break;
    }
  });
  model_->optimizer().reset_master(context);
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

void Trainer::run_stage(const StageConfig& stage) {
  lay_out(stage);
  describe_stage(stage);
  if (state_.stage_iteration == 0) state_.stream.begin_mix();
  const Mesh& mesh = model_->mesh();
  std::optional<Stage> current;
  together(world_, [&] { current.emplace(config_, stage, device_, mesh, state_.stream); });
  state_.stream = current->stream.state();
  const std::int64_t total = state_.iteration - state_.stage_iteration + stage.train_iters();
  if (ledger_)
    ledger_->begin({state_.iteration, total, stage.name, config_.seed, stage.seq_length, stage.global_batch_size, stage.packing, sources_of(stage),
                    state_.stream});
  model_->begin_stage(stage.rope, stage.seq_length, stage.micro_batch_size, stage.num_microbatches(mesh.shape.dp),
                      {stage.recompute, stage.moe});
  write(event("stage_begin").add("stage", stage.name).add("iteration", state_.iteration).add("layout", describe(model_->layout())));

  while (state_.stage_iteration < stage.train_iters()) {
    report(step(stage, *current));
    bool last = state_.stage_iteration == stage.train_iters();
    if (state_.iteration % config_.logging.log_interval == 0 || last)
      if (speaks()) say("{}\n", window_.line(total, remaining_flops(stage)));
    auto due = [&](std::int64_t interval) { return interval > 0 && state_.iteration % interval == 0; };
    if (last || due(config_.validation.eval_interval)) validate(*current);
    report_save(saver_.poll());
    if (!last && due(config_.checkpoint.save_interval)) save(config_.checkpoint.async_save ? Save::meanwhile : Save::now, false);
  }
  if (!save(Save::now, true) && &stage == &config_.stages.back())
    throw InternalError(fmt::format("the last checkpoint of {} could not be saved; started again, the run goes on from the one before", config_.output_dir));
  JsonLine end = event("stage_end").add("stage", stage.name).add("iteration", state_.iteration);
  if (stage.packing == Packing::best_fit) {
    const double share = utilization(state_.stream.padding(), state_.stream.sequences_since_mix_change * stage.seq_length);
    say(" stage {}: {:.2f} % of its tokens are documents', the others masked\n", stage.name, 100 * share);
    end.add("packing_utilization", share);
  }
  write(end);
}

void Trainer::report(const StepMetrics& metrics) {
  if (!speaks()) return;
  ledger_->step(state_.iteration, state_.stream);
  metrics_->write(metrics);
  if (tensorboard_) tensorboard_->write(metrics);
  window_.add(metrics);
}

StepMetrics Trainer::step(const StageConfig& stage, Stage& current) {
  auto begin = std::chrono::steady_clock::now();
  const Mesh& mesh = model_->mesh();
  StepMetrics metrics;
  metrics.learning_rate = learning_rate(stage.lr, stage.steps(), state_.stage_iteration);
  OptimizerSettings optimizer = stage.optimizer.settings;
  optimizer.weight_decay = weight_decay(stage.optimizer, stage.steps(), state_.stage_iteration);

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
  gather_measures(metrics);
  metrics.iteration_time_ms = seconds_since(begin) * 1e3;
  flops_per_token_ = metrics.model_flops / double(metrics.tokens);
  return metrics;
}

void Trainer::gather_measures(StepMetrics& metrics) {
  const Mesh& mesh = model_->mesh();
  double memory = double(peak_resident_bytes());
  if (world_.size() > 1) {
    AxisBytes sent = world_.bytes();
    std::vector<double> sums(std::size_t(kAxes + mesh.shape.pp));
    for (int a = 0; a < kAxes; ++a) sums[std::size_t(a)] = double(sent.sent[std::size_t(a)] - sent_before_.sent[std::size_t(a)]);
    sent_before_ = sent;
    sums[std::size_t(kAxes + mesh.position.pp)] = model_->executor().idle_share() * mesh.shape.pp / world_.size();
    Pending adding = world_.all_reduce(Tensor(sums.data(), DType::f64, {std::int64_t(sums.size())}));
    Pending comparing = world_.all_reduce(Tensor(&memory, DType::f64, {1}), Reduction::max);
    adding.wait();
    comparing.wait();
    auto bytes = [&](Axis axis) { return std::int64_t(sums[std::size_t(axis)]); };
    metrics.comm_bytes = {bytes(Axis::tp), bytes(Axis::cp), bytes(Axis::ep) + bytes(Axis::etp), bytes(Axis::dp) + bytes(Axis::edp), bytes(Axis::pp)};
    if (mesh.shape.pp > 1) metrics.pipeline_idle.assign(sums.begin() + kAxes, sums.end());
  }
  metrics.memory_bytes = std::int64_t(memory);
}

// Losses of the routers and tokens per expert; the step's counts become the previous ones.
void Trainer::report_router(const StageConfig& stage, StepMetrics& metrics) {
  double balance = 0, current_f = 0, z = 0, tokens = 0, squares = 0, experts = 0, dropped = 0, in_rounds = 0;
  TokensPerExpert load{INFINITY, 0, 0};
  for (const RouterStatistics& layer : model_->router_statistics()) {
    if (layer.counts.empty()) continue;
    balance += layer.balance_loss_sum / layer.micro_batches;
    z += layer.z_loss_sum / layer.micro_batches;
    dropped += layer.dropped;
    in_rounds += layer.in_rounds;
    current_f += layer.loss_with_current_counts(stage.moe);
    for (std::int64_t n : layer.counts) {
      load.min = std::min(load.min, double(n));
      load.max = std::max(load.max, double(n));
      tokens += double(n);
      squares += double(n) * double(n);
      experts += 1;
    }
  }
  model_->end_router_step();
  if (experts == 0) return;
  double mean = tokens / experts;
  load.cv = std::sqrt(std::max(0.0, squares / experts - mean * mean)) / mean;
  metrics.tokens_per_expert = load;
  if (stage.moe.capacity_factor) metrics.tokens_dropped = dropped;
  if (const MeshShape& mesh = model_->mesh().shape; mesh.ep > 1 || mesh.etp > 1) metrics.experts_in_rounds = in_rounds;
  if (stage.moe.type != BalanceType::none) metrics.load_balancing_loss = balance;
  if (stage.moe.type == BalanceType::global_aux_loss) metrics.load_balancing_loss_current_f = current_f;
  if (stage.moe.z_loss_coeff != 0) metrics.z_loss = z;
}

void Trainer::validate(Stage& current) {
  for (const ValidationResult& result : current.validation.run(*model_)) {
    say("{}\n", log_line(result, state_.iteration));
    JsonLine line = event("validation").add("stage", state_.stage_name).add("iteration", state_.iteration);
    add_to(line, result);
    write(line);
    if (tensorboard_) tensorboard_->write(result, state_.iteration, state_.consumed_samples);
  }
}

bool Trainer::save(Save when, bool stage_finished) {
  end_save();
  state_.stage_finished = stage_finished;
  std::vector<RouterStatistics> router = model_->router_statistics();
  model_->gatherer().finish();
  saver_.begin(state_, {model_->config(), model_->parameters(), model_->optimizer(), router, model_->mesh()}, to_yaml(config_));
  return when == Save::meanwhile || end_save();
}

bool Trainer::end_save() { return report_save(saver_.finish()); }

bool Trainer::report_save(const std::optional<SaveOutcome>& outcome) {
  if (!outcome) return true;
  if (!outcome->error.empty()) {
    say("warning: the checkpoint {} could not be saved: {}; the run goes on, the next one is tried as usual\n", outcome->path, outcome->error);
    write(event("checkpoint_failed").add("stage", state_.stage_name).add("iteration", outcome->iteration).add("path", outcome->path).add("reason", outcome->error));
    return false;
  }
  say(" saved {} ({:.2f} s, training waited {:.2f} s)\n", outcome->path, outcome->seconds, outcome->blocked_seconds);
  write(event("checkpoint").add("stage", state_.stage_name).add("iteration", outcome->iteration).add("path", outcome->path)
            .add("seconds", outcome->seconds).add("blocked_seconds", outcome->blocked_seconds));
  return true;
}

double Trainer::remaining_flops(const StageConfig& stage) const {
  double tokens = double(stage.train_iters() - state_.stage_iteration) * double(stage.tokens_per_iteration());
  for (std::size_t i = std::size_t(state_.stage) + 1; i < config_.stages.size(); ++i)
    tokens += double(config_.stages[i].train_iters()) * double(config_.stages[i].tokens_per_iteration());
  return tokens * flops_per_token_;
}

}  // namespace af
