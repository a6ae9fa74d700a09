#include "launch/config_sections.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

namespace af {
namespace {

constexpr Limits kRanks{1, 1 << 20};

}  // namespace

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
  std::vector<std::pair<const char*, ScheduleKind>> schedules;
  for (ScheduleKind kind : {ScheduleKind::gpipe, ScheduleKind::one_f_one_b, ScheduleKind::interleaved, ScheduleKind::zero_bubble}) {
    schedules.emplace_back(name_of(kind), kind);
  }
  f.choice<ScheduleKind>("schedule", p.schedule, schedules);
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

}  // namespace af
