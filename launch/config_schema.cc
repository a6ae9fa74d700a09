#include "launch/config_schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <sstream>

#include "core/error.h"
#include "launch/hf_config.h"
#include "launch/lr_schedule.h"

namespace af {
namespace {

constexpr Limits kCount{1, 2147483647}, kRanks{1, 1 << 20};

// null takes the model's rope_scaling away in a stage.
void describe_rope(Fields& f, RopeSettings& rope) {
  f.real("rope_theta", rope.theta, {1, kUnbounded, true, false});
  if (f.reading() ? f.is_null("rope_scaling") : !rope.yarn) {
    rope.yarn.reset();
    return f.null("rope_scaling");
  }
  if (f.reading() && !f.has("rope_scaling")) return;
  YarnScaling yarn;
  if (!f.reading()) yarn = *rope.yarn;
  f.section("rope_scaling", [&] {
    const std::size_t errors = f.errors();
    int only = 0;
    f.choice<int>("rope_type", only, {{"yarn", 0}});
    f.real("factor", yarn.factor, kAtLeastOne, Need::required);
    f.integer("original_max_position_embeddings", yarn.original_max_position_embeddings, kCount, Need::required);
    f.real("beta_fast", yarn.beta_fast, kPositive);
    f.real("beta_slow", yarn.beta_slow, kPositive);
    f.real("attention_factor", yarn.attention_factor, kPositive);
    if (f.errors() == errors && yarn.beta_fast <= yarn.beta_slow) {
      f.error("beta_fast", fmt::format("is {}; it must be above beta_slow, {}", yarn.beta_fast, yarn.beta_slow));
    }
  });
  rope.yarn = yarn;
}

void describe_model_fields(Fields& f, ModelConfig& m) {
  f.choice<std::string>("model_type", m.model_type, {{"qwen3_moe", "qwen3_moe"}, {"qwen3", "qwen3"}});
  f.integer("vocab_size", m.vocab_size, kCount, Need::required);
  f.integer("hidden_size", m.hidden_size, kCount, Need::required);
  f.integer("num_hidden_layers", m.num_hidden_layers, {1, 65536}, Need::required);
  f.integer("num_attention_heads", m.num_attention_heads, kCount, Need::required);
  f.integer("num_key_value_heads", m.num_key_value_heads, kCount, Need::required);
  f.integer("head_dim", m.head_dim, kCount, Need::required);
  f.integer("intermediate_size", m.intermediate_size, {0, kCount.high});
  f.integer("max_position_embeddings", m.max_position_embeddings, kCount, Need::required);
  f.real("rms_norm_eps", m.rms_norm_eps, kPositive);
  f.real("initializer_range", m.initializer_range, kNotNegative);
  f.boolean("tie_word_embeddings", m.tie_word_embeddings, Need::required);
  describe_rope(f, m.rope);
  f.integer("num_experts", m.num_experts, {0, kCount.high});
  f.integer("num_experts_per_tok", m.num_experts_per_tok, {0, kCount.high});
  f.integer("moe_intermediate_size", m.moe_intermediate_size, {0, kCount.high});
  f.integer("decoder_sparse_step", m.decoder_sparse_step, kCount);
  f.integers("mlp_only_layers", m.mlp_only_layers);
  f.boolean("norm_topk_prob", m.norm_topk_prob);
  f.real("router_aux_loss_coef", m.router_aux_loss_coef, kNotNegative);
}

void describe_model(Fields& f, ModelConfig& m, std::size_t errors) {
  const char* named = f.has("hf_config") ? "hf_config" : f.has("preset") ? "preset" : nullptr;
  if (named == nullptr) {
    if (f.reading() && !f.has("num_experts")) m.model_type = "qwen3";
    describe_model_fields(f, m);
    if (!f.reading() || f.errors() != errors) return;
    for (const std::string& problem : problems(m)) {  // each begins with its field's name
      const std::string field = problem.substr(0, problem.find_first_of(" .:"));
      f.error(field.c_str(), problem.starts_with(field + " is ") ? problem.substr(field.size() + 1) : problem);
    }
    return;
  }
  f.alone(named, "give hf_config, or preset, or the fields themselves");
  std::string name;
  f.text(named, name);
  if (name.empty()) return;
  try {
    m = std::string(named) == "preset" ? model_preset(name) : read_hf_config(name);
  } catch (const UserError& e) {
    std::istringstream lines(e.what());  // one message a line
    for (std::string line; std::getline(lines, line);) f.error(named, line);
  }
}

void describe_init(Fields& f, InitConfig& init) {
  if (f.reading() ? f.is_word("init", "random") || !f.has("init") : init.from == InitConfig::From::random) return f.word("init", "random");
  f.section("init", [&] {
    const bool hf = f.reading() ? f.has("hf_checkpoint") : init.from == InitConfig::From::hf_checkpoint;
    const char* key = hf ? "hf_checkpoint" : "checkpoint";
    if (f.reading() && !hf && !f.has("checkpoint")) return f.error("", "must be random, or have hf_checkpoint: FOLDER or checkpoint: FOLDER");
    init.from = hf ? InitConfig::From::hf_checkpoint : InitConfig::From::checkpoint;
    f.text(key, init.path);
    f.alone(key, "give one of them");
    init.where = f.where(key);
  });
}

void describe_parallel(Fields& f, ParallelConfig& p) {
  f.integer("tensor_model_parallel_size", p.tensor_model_parallel_size, kRanks);
  f.integer("pipeline_model_parallel_size", p.pipeline_model_parallel_size, kRanks);
  f.integer("virtual_pipeline_model_parallel_size", p.virtual_pipeline_model_parallel_size, kRanks);
  f.integer("context_parallel_size", p.context_parallel_size, kRanks);
  f.integer("expert_model_parallel_size", p.expert_model_parallel_size, kRanks);
  f.integer_or_auto("expert_tensor_parallel_size", p.expert_tensor_parallel_size, kRanks);
  f.boolean("sequence_parallel", p.sequence_parallel);
  f.text("pipeline_model_parallel_layout", p.pipeline_model_parallel_layout);
  f.boolean("overlap_grad_reduce", p.overlap_grad_reduce);
  f.boolean("overlap_param_gather", p.overlap_param_gather);
  for (const char* key : {"context_parallel_size", "expert_tensor_parallel_size", "expert_model_parallel_size", "pipeline_model_parallel_size",
                          "tensor_model_parallel_size"})
    if (f.has(key)) p.where = f.where(key);
}

void describe_pipeline(Fields& f, PipelineConfig& p) {
  f.choice<ScheduleKind>("schedule", p.schedule,
                         {{"gpipe", ScheduleKind::gpipe},
                          {"1f1b", ScheduleKind::one_f_one_b},
                          {"interleaved", ScheduleKind::interleaved},
                          {"zero_bubble", ScheduleKind::zero_bubble}});
  f.integer_or_auto("microbatch_group_size_per_vp_stage", p.microbatch_group_size_per_vp_stage, kRanks);
}

void describe_recompute(Fields& f, RecomputeSettings& r) {
  using Granularity = RecomputeSettings::Granularity;
  struct Module {
    const char* name;
    bool RecomputeSettings::*flag;
  };
  const Module modules[] = {{"core_attn", &RecomputeSettings::core_attn},
                            {"layernorm", &RecomputeSettings::layernorm},
                            {"moe_act", &RecomputeSettings::moe_act},
                            {"mlp", &RecomputeSettings::mlp},
                            {"moe", &RecomputeSettings::moe}};
  std::vector<std::string> names, chosen;
  for (const Module& module : modules) {
    names.emplace_back(module.name);
    if (r.*module.flag) chosen.emplace_back(module.name);
  }
  f.choice<Granularity>("recompute_granularity", r.granularity,
                        {{"none", Granularity::none}, {"selective", Granularity::selective}, {"full", Granularity::full}});
  if (r.granularity == Granularity::selective) {
    if (chosen.empty()) chosen = {"core_attn"};  // Megatron's default
    f.words("recompute_modules", chosen, names);
    if (chosen.empty()) f.error("recompute_modules", "names nothing; that is recompute_granularity: none");
  } else {
    if (f.has("recompute_modules")) f.error("recompute_modules", "goes with recompute_granularity: selective only");
    chosen.clear();
  }
  for (const Module& module : modules) r.*module.flag = std::find(chosen.begin(), chosen.end(), module.name) != chosen.end();
  if (r.granularity == Granularity::full) {
    using Method = RecomputeSettings::Method;
    f.choice<Method>("recompute_method", r.method, {{"uniform", Method::uniform}, {"block", Method::block}});
    f.integer("recompute_num_layers", r.num_layers, kCount);
  } else {
    for (const char* key : {"recompute_method", "recompute_num_layers"}) {
      if (f.has(key)) f.error(key, "goes with recompute_granularity: full only");
    }
    r.method = RecomputeSettings{}.method;
    r.num_layers = RecomputeSettings{}.num_layers;
  }
}

void describe_optimizer(Fields& f, OptimizerConfig& o) {
  using Style = OptimizerConfig::WeightDecayStyle;
  int only = 0;
  f.choice<int>("optimizer", only, {{"adamw", 0}});
  f.real("adam_beta1", o.settings.beta1, kShare);
  f.real("adam_beta2", o.settings.beta2, kShare);
  f.real("adam_eps", o.settings.eps, kPositive);
  f.real("weight_decay", o.settings.weight_decay, kNotNegative);
  f.choice<Style>("weight_decay_incr_style", o.weight_decay_incr_style,
                  {{"constant", Style::constant}, {"linear", Style::linear}, {"cosine", Style::cosine}});
  f.real("end_weight_decay", o.end_weight_decay, kNotNegative);
  if (o.weight_decay_incr_style != Style::constant && !o.end_weight_decay && f.has("weight_decay_incr_style"))
    f.error("weight_decay_incr_style", "needs end_weight_decay");
  if (o.weight_decay_incr_style == Style::constant && f.has("end_weight_decay")) {
    f.error("end_weight_decay", "goes with weight_decay_incr_style: linear or cosine");
  }
  if (o.weight_decay_incr_style == Style::constant) o.end_weight_decay.reset();
  f.real("clip_grad", o.settings.clip_grad, kNotNegative);
}

void describe_moe(Fields& f, BalanceSettings& moe) {
  f.choice<BalanceType>("moe_router_load_balancing_type", moe.type,
                        {{"none", BalanceType::none},
                         {"aux_loss", BalanceType::aux_loss},
                         {"seq_aux_loss", BalanceType::seq_aux_loss},
                         {"global_aux_loss", BalanceType::global_aux_loss}});
  f.real("moe_aux_loss_coeff", moe.aux_loss_coeff, kNotNegative);
  f.real("moe_z_loss_coeff", moe.z_loss_coeff, kNotNegative);
  f.real("moe_memory_factor", moe.memory_factor, kPositive);
  const char* capacity = "moe_expert_capacity_factor";  // null takes it away in a stage
  if (f.reading() ? f.is_null(capacity) : !moe.capacity_factor) {
    moe.capacity_factor.reset();
    f.null(capacity);
  } else {
    f.real(capacity, moe.capacity_factor, kPositive);
  }
  f.choice<DropPolicy>("moe_token_drop_policy", moe.drop_policy, {{"probs", DropPolicy::probs}, {"position", DropPolicy::position}});
}

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

enum class Weights { no, yes };

void describe_data(Fields& f, std::vector<DataSource>& data, Weights weights, Need need) {
  std::map<std::string, std::string> places;
  f.list(
      "data", data, DataSource{},
      [&](DataSource& source) {
        f.text("path", source.path, Need::required);
        f.text("name", source.name);
        if (weights == Weights::yes) f.real("weight", source.weight, kPositive);
        if (!f.reading()) return;
        source.where = f.where("path");
        if (source.name.empty()) source.name = std::filesystem::path(source.path).stem().string();
        const auto [known, fresh] = places.emplace(source.name, source.where);
        if (!fresh && !source.name.empty())
          f.error("name", fmt::format("{} is the name of the source at {} too; give another", source.name, known->second));
      },
      need);
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

void describe_runtime(Fields& f, RuntimeConfig& r) {
  using Device = RuntimeConfig::DeviceChoice;
  using Precision = RuntimeConfig::Precision;
  f.choice<Device>("device", r.device, {{"auto", Device::automatic}, {"cpu", Device::cpu}});
  f.choice<Precision>("precision", r.precision,
                      {{"auto", Precision::automatic}, {"fp32", Precision::fp32}, {"bf16", Precision::bf16}, {"fp64", Precision::fp64}});
  f.integer_or_auto("threads_per_rank", r.threads_per_rank, {1, 4096});
  f.real("distributed_timeout_minutes", r.distributed_timeout_minutes, kPositive);
  f.real("heartbeat_seconds", r.heartbeat_seconds, kNotNegative);
  f.integer("max_bad_steps", r.max_bad_steps, kCount);
  f.real("loss_spike_factor", r.loss_spike_factor, kNotNegative);
  if (r.loss_spike_factor > 0 && r.loss_spike_factor <= 1) f.error("loss_spike_factor", fmt::format("is {}; it must be above 1, or 0 for none", r.loss_spike_factor));
  f.integer("loss_spike_window", r.loss_spike_window, {1, 1'000'000});
  f.integer("loss_spike_skip", r.loss_spike_skip, kCount);
  f.real_or_auto("peak_tflops", r.peak_tflops, kPositive);
}

}  // namespace

void describe(Fields& f, Config& config) {
  f.text("output_dir", config.output_dir, Need::required);
  std::int64_t seed = std::int64_t(config.seed);
  f.integer("seed", seed, kNotNegative);
  config.seed = std::uint64_t(seed);
  const std::size_t errors = f.errors();  // a missing section is one error, not one per field
  f.section(
      "model", [&] { describe_model(f, config.model, errors); }, Need::required);
  describe_init(f, config.init);
  if (!f.reading() ? !config.tokenizer.path.empty() : f.has("tokenizer")) {
    f.section("tokenizer", [&] {
      f.text("path", config.tokenizer.path, Need::required);
      config.tokenizer.where = f.where("path");
    });
  }
  f.section("parallel", [&] { describe_parallel(f, config.parallel); });
  f.section("pipeline", [&] { describe_pipeline(f, config.pipeline); });
  f.section("recompute", [&] { describe_recompute(f, config.recompute); });
  f.section("optimizer", [&] { describe_optimizer(f, config.optimizer); });
  f.section("moe", [&] { describe_moe(f, config.moe); });

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

  f.section("validation", [&] {
    describe_data(f, config.validation.data, Weights::no, Need::optional);
    f.integer("eval_interval", config.validation.eval_interval, kNotNegative);
    f.integer("eval_iters", config.validation.eval_iters, kCount);
  });
  f.section("checkpoint", [&] {
    f.integer("save_interval", config.checkpoint.save_interval, kNotNegative);
    f.integer("keep", config.checkpoint.keep, kNotNegative);
    f.integer("keep_every", config.checkpoint.keep_every, kNotNegative);
    f.boolean("async_save", config.checkpoint.async_save, Need::optional);
    f.integer("staging_bytes", config.checkpoint.staging_bytes, kNotNegative);
  });
  f.section("logging", [&] {
    f.integer("log_interval", config.logging.log_interval, kCount);
    f.boolean("tensorboard", config.logging.tensorboard, Need::optional);
  });
  f.section("runtime", [&] { describe_runtime(f, config.runtime); });
}

}  // namespace af
