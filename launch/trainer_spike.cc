// How the trainer goes back behind a loss spike (launch/loss_spike.h).
#include <filesystem>
#include <utility>

#include "launch/bad_step.h"
#include "launch/checkpoint_manifest.h"
#include "launch/environment.h"
#include "launch/trainer.h"
#include "parallel/together.h"

namespace af {

void Trainer::watch_loss(const StageConfig& stage, const StepMetrics& metrics, std::int64_t first_sequence) {
  const RuntimeConfig& runtime = config_.runtime;
  if (runtime.loss_spike_factor == 0 || metrics.skipped || metrics.nan) return;
  std::vector<double>& losses = state_.recent_losses;
  if (std::optional<double> median = median_below(losses, metrics.lm_loss, runtime.loss_spike_factor, runtime.loss_spike_window)) {
    spike_ = spike_of(state_.stream, first_sequence, stage.global_batch_size, std::min(runtime.loss_spike_skip, state_.stage_iteration));
    spike_->stage = stage.name, spike_->iteration = state_.iteration;
    spike_->lm_loss = metrics.lm_loss, spike_->median = *median;
    return;
  }
  losses.push_back(metrics.lm_loss);
  if (const auto surplus = std::ptrdiff_t(losses.size()) - std::ptrdiff_t(runtime.loss_spike_window); surplus > 0)
    losses.erase(losses.begin(), losses.begin() + surplus);
}

std::string Trainer::load_before(std::int64_t sequence, std::vector<std::string>& newer, std::vector<std::string>& damaged) {
  enum No : std::int64_t { use, newer_than_it, gone };  // an old one may have been removed meanwhile
  while (!lineage_.empty()) {
    const std::string path = lineage_.back();
    std::int64_t no = use;  // on any rank
    try {
      together_or_damaged(world_, [&] { no = !holds_checkpoint(path) ? gone : read_state(path).stream.consumed_sequences > sequence ? newer_than_it : use; });
      world_.all_reduce(Tensor(&no, DType::i64, {1}), Reduction::max).wait();
      if (no == use) {
        load(path);
        return path;
      }
      if (no == newer_than_it) newer.push_back(path);
    } catch (const DamagedCheckpoint& error) {
      say("skipped the checkpoint {}: {}\n", path, error.what());
      write(event("checkpoint_skipped").add("path", path).add("reason", error.what()));
      damaged.push_back(path);
    }
    lineage_.pop_back();
  }
  return "";
}

bool Trainer::go_back() {
  LossSpike spike = *std::exchange(spike_, std::nullopt);
  end_save();
  model_->gatherer().finish();
  const std::string newest = lineage_.empty() ? "none" : lineage_.back();
  const auto fail = [&](const std::string& why) {
    say("stopped: {}; the newest checkpoint is {}\n", why, newest);
    write(event("stop").add("reason", "loss spike").add("stage", spike.stage).add("iteration", spike.iteration));
    return false;
  };
  const std::string what = fmt::format("the lm loss of iteration {} is {:.6g}, {:.3g} times the median of the last {} steps", spike.iteration, spike.lm_loss,
                                       spike.lm_loss / spike.median, config_.runtime.loss_spike_window);
  const std::vector<LossSpike>& known = state_.spikes;
  if (!known.empty() && spike.iteration <= known.back().iteration)
    return fail(fmt::format("{}, although the samples that had been there in iteration {} were left out: it is not they alone. A lower learning rate may help, or a "
                            "larger runtime.loss_spike_skip ({})", what, known.back().iteration, config_.runtime.loss_spike_skip));
  // Named while the ledger still has the steps.
  std::vector<JsonLine> sequences;
  std::string documents;
  if (speaks())
    for (std::int64_t n = 0, step = spike.iteration; n < spike.steps; ++n, --step) {
      const StepContents contents = replay_step(config_.output_dir, step);
      documents = documents_text(contents, {}) + (documents.empty() ? "" : "; ") + documents;
      const std::vector<JsonLine> lines = documents_json(contents, {});
      sequences.insert(sequences.begin(), lines.begin(), lines.end());
    }
  std::vector<LossSpike> spikes = state_.spikes;
  StreamState marked = state_.stream;
  marked.pass_over(spike.samples.begin, spike.samples.begin + spike.samples.count);
  std::vector<std::string> newer, damaged;
  const std::string path = load_before(spike.first_sequence, newer, damaged);
  if (path.empty())
    return fail(what + ", and there is no checkpoint from before its samples to go back to" +
                (damaged.empty() ? ": keep more of them (checkpoint.save_interval, checkpoint.keep)" : " that can be read"));
  spike.back_to = state_.iteration;
  spikes.push_back(spike);
  state_.spikes = std::move(spikes);
  state_.stream.passed_over = marked.passed_over;
  saved_iteration_ = state_.iteration;
  begun_iteration_ = -1;  // a job that got this far has done something, however little time is left
  bad_steps_ = 0;
  // Those that were taken on the way to the spike: a restart shall not go on from them.
  const std::string root = config_.output_dir + "/checkpoints";
  together(world_, [&] {
    if (!speaks()) return;
    if (is_own(path)) point_latest(root, std::filesystem::path(path).filename().string());
    for (const std::string& one : newer)
      if (is_own(one)) remove_checkpoint(one);
    for (const std::string& one : damaged)
      if (is_own(one)) set_aside(one);
  });
  say("loss spike: {}; back to {} (iteration {}), and on without the {} samples from number {} on: {}\n", what, path, spike.back_to,
      spike.steps * config_.stages[std::size_t(state_.stage)].global_batch_size, spike.first_sequence, documents);
  write(event("rewind").add("stage", spike.stage).add("iteration", spike.iteration).add("lm_loss", spike.lm_loss).add("median", spike.median)
            .add("checkpoint", path).add("back_to", spike.back_to).add("sequences", sequences));
  save(Save::now, state_.stage_finished);  // in its place: a run that is killed before the next one shall know what it leaves out
  return true;
}

}  // namespace af
