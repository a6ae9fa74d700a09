#include "launch/config_schema.h"

#include <fmt/format.h>

#include <sstream>
#include <string>

#include "core/error.h"
#include "launch/config_sections.h"
#include "launch/config_stages.h"
#include "launch/hf_config.h"

namespace af {
namespace {

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
  if (r.loss_spike_factor > 0 && r.loss_spike_factor <= 1)
    f.error("loss_spike_factor", fmt::format("is {}; it must be above 1, or 0 for none", r.loss_spike_factor));
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
  describe_stages(f, config);
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
