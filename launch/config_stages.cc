#include "launch/config_stages.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>

#include "launch/config_sections.h"
#include "launch/lr_schedule.h"

namespace af {
namespace {

void describe_lr(Fields& f, LrConfig& lr) {
  f.real("lr", lr.lr, kNotNegative, Need::required);
  f.real("min_lr", lr.min_lr, kNotNegative);
  std::vector<std::pair<const char*, LrDecayStyle>> styles;
  for (LrDecayStyle s : {LrDecayStyle::constant, LrDecayStyle::linear, LrDecayStyle::cosine, LrDecayStyle::inverse_square_root, LrDecayStyle::wsd}) {
    styles.emplace_back(name_of(s), s);
  }
  f.choice<LrDecayStyle>("lr_decay_style", lr.lr_decay_style, styles);
  f.real("lr_warmup_init", lr.lr_warmup_init, kNotNegative);
  f.real("lr_warmup_fraction", lr.lr_warmup_fraction, kShare);
  f.integer("lr_warmup_iters", lr.lr_warmup_iters, kNotNegative);
  f.integer("lr_warmup_samples", lr.lr_warmup_samples, kNotNegative);
  f.integer("lr_decay_iters", lr.lr_decay_iters, kAtLeastOne);
  if (lr.lr_decay_style == LrDecayStyle::wsd) {
    f.choice<WsdDecayStyle>("lr_wsd_decay_style", lr.lr_wsd_decay_style,
                            {{"linear", WsdDecayStyle::linear},
                             {"cosine", WsdDecayStyle::cosine},
                             {"exponential", WsdDecayStyle::exponential},
                             {"minus_sqrt", WsdDecayStyle::minus_sqrt}});
    f.integer("lr_wsd_decay_iters", lr.lr_wsd_decay_iters, kAtLeastOne);
  } else {
    for (const char* key : {"lr_wsd_decay_style", "lr_wsd_decay_iters"}) {
      if (f.has(key)) f.error(key, "goes with lr_decay_style: WSD only");
    }
  }
}

void check_lr(Fields& f, const LrConfig& lr) {
  const int warmups = int(lr.lr_warmup_fraction.has_value()) + int(lr.lr_warmup_iters.has_value()) + int(lr.lr_warmup_samples.has_value());
  if (warmups > 1) f.error("", "has several of lr_warmup_fraction, lr_warmup_iters, lr_warmup_samples; give one");
  if (lr.min_lr > lr.lr) f.error("min_lr", fmt::format("is {}; it must be at most lr, {}", lr.min_lr, lr.lr));
  if (lr.lr_warmup_init > lr.lr) f.error("lr_warmup_init", fmt::format("is {}; it must be at most lr, {}", lr.lr_warmup_init, lr.lr));
  if (lr.lr_decay_style == LrDecayStyle::wsd && !lr.lr_wsd_decay_iters) f.error("", "lr_wsd_decay_iters is missing: the length of WSD's last phase");
}

void check_lr_lengths(Fields& f, const LrConfig& lr, const StageSteps& steps) {
  const std::int64_t decay = lr.lr_decay_iters.value_or(steps.train_iters);
  const double warmup = warmup_samples(lr, steps), end = double(decay) * double(steps.global_batch_size);
  if (warmup >= end && lr.lr_decay_style != LrDecayStyle::constant) {
    f.error(lr.lr_warmup_iters ? "lr_warmup_iters" : "lr_warmup_samples",
            fmt::format("the warm-up of {} samples must end before the decay does, after {} ({} iterations of {})", warmup, end, decay,
                        steps.global_batch_size));
  }
  if (lr.lr_decay_style == LrDecayStyle::wsd && *lr.lr_wsd_decay_iters > decay) {
    f.error("lr_wsd_decay_iters", fmt::format("is {}; it must be at most the {} iterations of the decay", *lr.lr_wsd_decay_iters, decay));
  }
}

void describe_length(Fields& f, TrainLength& length) {
  using Unit = TrainLength::Unit;
  const std::pair<const char*, Unit> units[] = {{"train_tokens", Unit::tokens}, {"train_samples", Unit::samples}, {"train_iters", Unit::iters}};
  const char* given = nullptr;
  for (const auto& [name, unit] : units) {
    if (f.reading() ? !f.has(name) : length.unit != unit) continue;
    if (given != nullptr) f.error(name, fmt::format("stands beside {}; give one of them", given));
    given = name;
    length.unit = unit;
    f.integer(name, length.amount, kAtLeastOne);
  }
  if (given == nullptr) f.error("", "train_tokens, train_samples or train_iters is missing");
}

void check_stage(Fields& f, const StageConfig& stage) {
  const std::int64_t micro = stage.micro_batch_size, global = stage.global_batch_size;
  if (double(micro) * double(stage.seq_length) > kCount.high) {
    return f.error("micro_batch_size", fmt::format("{} sequences of {} tokens; a micro-batch must be below 2^31 tokens", micro, stage.seq_length));
  }
  if (global % micro != 0) f.error("global_batch_size", fmt::format("is {}; it must be a multiple of micro_batch_size {}", global, micro));
  if (stage.train_iters() < 1) {
    f.error(stage.length.unit == TrainLength::Unit::tokens ? "train_tokens" : "train_samples",
            fmt::format("is {}, less than one step of {} sequences of {} tokens ({} tokens)", stage.length.amount, global, stage.seq_length,
                        stage.tokens_per_iteration()));
  }
}

void describe_loss_roles(Fields& f, std::optional<RoleSet>& roles) {
  if (!f.reading() ? !roles : !f.has("loss_roles")) return;
  const std::vector<std::string> names(kRoleNames.begin(), kRoleNames.end());
  std::vector<std::string> chosen;
  for (std::size_t i = 0; i < names.size(); ++i)
    if (roles && roles->has(Role(i))) chosen.push_back(names[i]);
  f.words("loss_roles", chosen, names);
  if (chosen.empty()) f.error("loss_roles", "names no role, so that nothing would count; leave the key out to count all tokens");
  roles.emplace();
  for (const std::string& name : chosen) roles->add(Role(std::find(names.begin(), names.end(), name) - names.begin()));
}

void describe_stage(Fields& f, StageConfig& stage) {
  const std::size_t errors = f.errors();
  f.text("name", stage.name, Need::required);
  const auto allowed = [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-' || c == '.'; };
  if (!std::all_of(stage.name.begin(), stage.name.end(), allowed)) {
    f.error("name", fmt::format("is '{}'; checkpoint folders bear it, so it must be letters, digits, '_', '-' and '.'", stage.name));
  }
  f.integer("seq_length", stage.seq_length, kCount, Need::required);
  describe_length(f, stage.length);
  f.integer("micro_batch_size", stage.micro_batch_size, kCount);
  f.integer("global_batch_size", stage.global_batch_size, kCount, Need::required);
  if (f.reading() && f.errors() == errors) check_stage(f, stage);
  f.section(
      "lr",
      [&] {
        const std::size_t lr_errors = f.errors();
        describe_lr(f, stage.lr);
        if (f.errors() == lr_errors) check_lr(f, stage.lr);
        if (f.reading() && f.errors() == errors) check_lr_lengths(f, stage.lr, stage.steps());
      },
      Need::required);
  describe_data(f, stage.data, Weights::yes, Need::required);
  f.choice<Packing>("packing", stage.packing, {{"sequential", Packing::sequential}, {"best_fit", Packing::best_fit}});
  describe_loss_roles(f, stage.loss_roles);
  describe_rope(f, stage.rope);
  f.section("recompute", [&] { describe_recompute(f, stage.recompute); });
  f.section("moe", [&] { describe_moe(f, stage.moe); });
  f.section("optimizer", [&] { describe_optimizer(f, stage.optimizer); });
  f.section("parallel", [&] { describe_parallel(f, stage.parallel); });
  f.section("pipeline", [&] { describe_pipeline(f, stage.pipeline); });
  stage.where = f.where("name");
}

// The ledger and the checkpoints go by names: each must mean one thing in the whole run.
void check_names(Fields& f, const std::vector<StageConfig>& stages) {
  std::map<std::string, const StageConfig*> seen;
  std::map<std::string, const DataSource*> sources;
  for (const StageConfig& stage : stages) {
    const auto [first, fresh] = seen.emplace(stage.name, &stage);
    if (!fresh) f.error("stages", fmt::format("two are called {}, at {} and {}; give another name", stage.name, first->second->where, stage.where));
    for (const DataSource& source : stage.data) {
      const auto [known, new_name] = sources.emplace(source.name, &source);
      if (!new_name && known->second->path != source.path) {
        f.error("stages", fmt::format("the sources at {} and {} are different files, both called {}; give one another name", known->second->where,
                                      source.where, source.name));
      }
    }
  }
}

}  // namespace

void describe_stages(Fields& f, Config& config) {
  StageConfig fresh;  // what a stage does not name is the top level's
  fresh.rope = config.model.rope;
  fresh.recompute = config.recompute;
  fresh.optimizer = config.optimizer;
  fresh.moe = config.moe;
  fresh.parallel = config.parallel;
  fresh.pipeline = config.pipeline;
  f.list(
      "stages", config.stages, fresh, [&](StageConfig& stage) { describe_stage(f, stage); }, Need::required);
  if (f.reading() && f.errors() == 0) check_names(f, config.stages);
}

}  // namespace af
