// What the trainer measures and says of a step.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "launch/environment.h"
#include "launch/trainer.h"

namespace af {

void Trainer::report(const StepMetrics& metrics) {
  if (!speaks()) return;
  ledger_->step(state_.iteration, state_.stream);
  metrics_->write(metrics);
  if (tensorboard_) tensorboard_->write(metrics);
  window_.add(metrics);
  watch_files();
}

void Trainer::watch_files() {
  const std::pair<const std::string&, const std::string&> files[] = {
      {metrics_->file().path(), metrics_->file().error()},
      {ledger_->path(), ledger_->error()},
      {tensorboard_ ? tensorboard_->file().path() : ledger_->path(), tensorboard_ ? tensorboard_->file().error() : ledger_->error()}};
  const auto failing = std::find_if(std::begin(files), std::end(files), [](const auto& file) { return !file.second.empty(); });
  const bool wait = failing != std::end(files);
  if (wait == std::exchange(files_wait_, wait)) return;
  if (wait) say("warning: {} cannot be written: {}; the run goes on, and what it reports waits in memory until there is room\n", failing->first, failing->second);
  else say(" what waited for room on the disk is written\n");
}

void Trainer::gather_measures(StepMetrics& metrics, std::chrono::steady_clock::time_point begin) {
  const Mesh& mesh = model_->mesh();
  double memory = double(peak_resident_bytes());
  stop_ = own_stop(TimeLimit::Next::step);
  if (world_.size() > 1) {
    const double waited = world_.seconds_waited() - waited_before_;
    const std::size_t own_time = std::size_t(kAxes + mesh.shape.pp + world_.rank());
    AxisBytes sent = world_.bytes();
    std::vector<double> sums(std::size_t(kAxes + mesh.shape.pp + world_.size()));
    sums[own_time] = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() - waited;
    double most[] = {memory, double(stop_)};
    for (int a = 0; a < kAxes; ++a) sums[std::size_t(a)] = double(sent.sent[std::size_t(a)] - sent_before_.sent[std::size_t(a)]);
    sent_before_ = sent;
    sums[std::size_t(kAxes + mesh.position.pp)] = model_->executor().idle_share() * mesh.shape.pp / world_.size();
    Pending adding = world_.all_reduce(Tensor(sums.data(), DType::f64, {std::int64_t(sums.size())}));
    Pending comparing = world_.all_reduce(Tensor(most, DType::f64, {2}), Reduction::max);
    adding.wait();
    comparing.wait();
    memory = most[0], stop_ = int(most[1]);
    auto bytes = [&](Axis axis) { return std::int64_t(sums[std::size_t(axis)]); };
    metrics.comm_bytes = {bytes(Axis::tp), bytes(Axis::cp), bytes(Axis::ep) + bytes(Axis::etp), bytes(Axis::dp) + bytes(Axis::edp), bytes(Axis::pp)};
    if (mesh.shape.pp > 1) metrics.pipeline_idle.assign(sums.begin() + kAxes, sums.begin() + kAxes + mesh.shape.pp);
    report_times(metrics, std::span(sums).subspan(std::size_t(kAxes + mesh.shape.pp)));
  }
  metrics.memory_bytes = std::int64_t(memory);
}

void Trainer::report_times(StepMetrics& metrics, std::span<const double> seconds) {
  if (!speaks()) return;
  std::vector<double> sorted(seconds.begin(), seconds.end());
  std::sort(sorted.begin(), sorted.end());
  const auto slowest = std::max_element(seconds.begin(), seconds.end()) - seconds.begin();
  metrics.rank_times = {sorted[(sorted.size() - 1) / 2], sorted.back(), int(slowest)};
  for (const Straggler& s : stragglers_.add(seconds)) {
    say(" rank {} ({}) is slow: it computes {:.3g} s a step, the median of its pipeline stage is {:.3g} s ({} steps)\n", s.rank, s.host, s.seconds,
        s.median, Stragglers::kSteps);
    write(event("straggler").add("iteration", state_.iteration).add("rank", s.rank).add("host", s.host).add("seconds", s.seconds).add("median", s.median));
  }
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

double Trainer::remaining_flops(const StageConfig& stage) const {
  double tokens = double(stage.train_iters() - state_.stage_iteration) * double(stage.tokens_per_iteration());
  for (std::size_t i = std::size_t(state_.stage) + 1; i < config_.stages.size(); ++i)
    tokens += double(config_.stages[i].train_iters()) * double(config_.stages[i].tokens_per_iteration());
  return tokens * flops_per_token_;
}

}  // namespace af
