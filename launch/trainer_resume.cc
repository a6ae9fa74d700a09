// What a run begins with: a checkpoint of its own, one that it is given, or initial weights.
#include <algorithm>
#include <filesystem>

#include "launch/config_yaml.h"
#include "launch/hf_checkpoint.h"
#include "launch/resume.h"
#include "launch/trainer.h"
#include "parallel/together.h"

namespace af {

namespace fs = std::filesystem;

// Weights and state: from a checkpoint of this run, or anew. In the layout of the stage that comes next.
void Trainer::begin() {
  if (resume()) return set_aside_others(lineage_.back());
  if (const std::size_t only = only_stage(); only > 0 && only < config_.stages.size())
    user_error("--stage {}: there is no checkpoint in {}/checkpoints; train stage {} first, or bring the one with {} that it ended with", options_.only_stage,
               config_.output_dir, config_.stages[only - 1].name, kStageFinishedFile);
  lay_out(config_.stages.front());
  load_initial_weights();
  set_aside_others("");
}

std::size_t Trainer::only_stage() const {
  const auto is_it = [&](const StageConfig& stage) { return stage.name == options_.only_stage; };
  return std::size_t(std::find_if(config_.stages.begin(), config_.stages.end(), is_it) - config_.stages.begin());
}

void Trainer::check_stage(const std::string& path, const TrainingState& saved) const {
  const std::size_t only = only_stage(), there = std::size_t(saved.stage);
  if (only == config_.stages.size() || only <= there || (only == there + 1 && saved.stage_finished)) return;
  user_error("--stage {}: stage {} is not finished: there is no {}/{}, that checkpoint is of iteration {} of {} in stage {}; train it to its end first",
             options_.only_stage, config_.stages[only - 1].name, path, kStageFinishedFile, saved.stage_iteration, config_.stages[there].train_iters(), saved.stage_name);
}

bool Trainer::resume() {
  if (options_.resume == "never") return false;
  if (options_.resume != "auto") {
    std::string path;
    together(world_, [&] { path = checkpoint_folder(options_.resume); });
    resume_from(path);
    return true;
  }
  std::vector<std::string> candidates;
  const std::string root = config_.output_dir + "/checkpoints";
  together(world_, [&] {
    if (speaks()) restore_replaced(root);
  });
  together(world_, [&] {
    candidates = checkpoints_in(root);
    if (const std::string latest = latest_checkpoint(root); candidates.empty() && !latest.empty())
      user_error("{}: is not a link to a checkpoint in {} but one itself, copied by what follows links: give it the name that it had, such as {}-{}", latest, root,
                 read_state(latest).stage_name, read_state(latest).iteration);
  });
  std::string last;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const std::string& path = candidates[i];
    try {
      // Behind a changed configuration the run does not go back: the steps before were others.
      if (resume_from(path)) lineage_.insert(lineage_.begin(), candidates.rbegin(), candidates.rend() - std::ptrdiff_t(i) - 1);
      return true;
    } catch (const DamagedCheckpoint& error) {
      last = error.what();
      say("skipped the checkpoint {}: {}\n", path, last);
      write(event("checkpoint_skipped").add("path", path).add("reason", last));
    }
  }
  if (!candidates.empty())
    user_error("{}: none of {} checkpoints can be read; to begin anew: --resume never", root, candidates.size());
  return false;
}

bool Trainer::is_own(const std::string& checkpoint) const {
  std::error_code no;
  return fs::equivalent(fs::absolute(checkpoint).parent_path(), config_.output_dir + "/checkpoints", no);
}

void Trainer::set_aside(const std::string& checkpoint) {
  const std::string to = set_aside_checkpoint(checkpoint);
  say(" set aside: {}, now {}; the run goes on from iteration {} without it\n", checkpoint, to, state_.iteration);
  write(event("checkpoint_set_aside").add("path", checkpoint).add("to", to));
}

void Trainer::set_aside_others(const std::string& from) {
  together(world_, [&] {
    if (!speaks()) return;
    const std::string root = config_.output_dir + "/checkpoints", latest = root + "/latest";
    const auto is_from = [&](const std::string& path) {
      std::error_code no;
      return fs::equivalent(path, from, no);
    };
    for (const std::string& path : checkpoints_in(root))
      if (iteration_of(path) >= state_.iteration && !is_from(path)) set_aside(path);
    // A job may have been killed between publishing it and this, or what was the newest went aside.
    if (from.empty() || !is_own(from)) {
      if (fs::is_symlink(latest) && !fs::exists(latest)) fs::remove(latest);
    } else if (!is_from(latest)) {
      point_latest(root, fs::canonical(from).filename().string());
    }
  });
}

void Trainer::load(const std::string& path) {
  TrainingState saved;
  together_or_damaged(world_, [&] {
    saved = read_state(path);
    if (saved.stage >= std::int64_t(config_.stages.size()) || config_.stages[std::size_t(saved.stage)].name != saved.stage_name)
      user_error("{}: was saved in stage {} (the {}. of its run), which this configuration does not have there", path, saved.stage_name, saved.stage + 1);
    if (const std::string& now = datasets_.front().info.tokenizer_sha256; saved.tokenizer_sha256 != now)
      user_error("{}: was trained on datasets of another tokenizer ({:.8}) than {} ({:.8}); resume with datasets of the same, or begin from the weights with init",
                 path, saved.tokenizer_sha256, datasets_.front().path, now);
    check_stage(path, saved);
  });
  const std::size_t only = only_stage();
  const std::size_t next = only < config_.stages.size() ? only : std::min(std::size_t(saved.stage) + (saved.stage_finished ? 1 : 0), only - 1);
  lay_out(config_.stages[next]);
  std::vector<RouterStatistics> router = model_->router_statistics();
  state_ = load_checkpoint(model_->context(), path, {model_->config(), model_->parameters(), model_->optimizer(), router, model_->mesh()});
  for (std::size_t i = 0; i < router.size(); ++i) model_->set_previous_counts(i, router[i].previous_counts);
}

bool Trainer::resume_from(const std::string& path) {
  load(path);
  lineage_ = {path};
  std::vector<ConfigChange> changed;
  bool same_samples = true, goes_on = false;
  std::int64_t progress = state_.stage_iteration;
  together(world_, [&] {
    const Config was = read_config(path + "/run.yaml", {});
    changed = changes(was, config_);
    const StageConfig &before = was.stages.at(std::size_t(state_.stage)), &now = config_.stages[std::size_t(state_.stage)];
    const bool is_next = only_stage() == config_.stages.size() || only_stage() == std::size_t(state_.stage);
    goes_on = state_.stage_finished && is_next && is_longer(before, now);
    if (goes_on) state_.stage_finished = false;
    if (!state_.stage_finished) progress = same_progress(before, now, state_.stage_iteration);
    same_samples = sources_of(before) == sources_of(now) && before.seq_length == now.seq_length && before.packing == now.packing && was.seed == config_.seed;
  });
  if (!same_samples) state_.stream.forget_ahead();  // what was to be left out there is not what comes now
  say("resumed from {} (stage {}, iteration {})\n", path, state_.stage_name, state_.iteration);
  JsonLine line = event("resume").add("checkpoint", path).add("stage", state_.stage_name).add("iteration", state_.iteration);
  std::vector<JsonLine> listed;
  for (const ConfigChange& change : changed) {
    say(" changed since: {}: {} -> {}\n", change.key, change.was.empty() ? "-" : change.was, change.now.empty() ? "-" : change.now);
    listed.push_back(JsonLine().add("key", change.key).add("was", change.was).add("now", change.now));
  }
  line.add("changed", listed);
  if (goes_on) say(" stage {} was finished with {} iterations; it is longer now and goes on\n", state_.stage_name, state_.stage_iteration);
  if (progress != state_.stage_iteration) {
    say(" {} iterations of stage {} were done; they count as {} of those it has now\n", state_.stage_iteration, state_.stage_name, progress);
    state_.stage_iteration = progress;
    line.add("stage_iteration", progress);
  }
  write(line);
  return changed.empty();
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

}  // namespace af
