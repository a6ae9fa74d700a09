#include <fmt/format.h>

#include <algorithm>

#include "data/segments.h"
#include "launch/config_checks.h"
#include "launch/lr_schedule.h"
#include "launch/metrics.h"
#include "launch/plan.h"
#include "parallel/schedule_drawing.h"

namespace af {
namespace {

std::string grouped(std::int64_t n) {  // 30,532,122,624
  std::string text = fmt::format("{}", n);
  for (std::ptrdiff_t at = std::ptrdiff_t(text.size()) - 3; at > (n < 0 ? 1 : 0); at -= 3) text.insert(std::size_t(at), ",");
  return text;
}

std::string bytes(std::int64_t n) {
  const double mib = double(n) / 1048576;
  if (mib < 1) return fmt::format("{:.1f} KiB", double(n) / 1024);
  return mib < 1024 ? fmt::format("{:.1f} MiB", mib) : fmt::format("{:.1f} GiB", mib / 1024);
}

std::string flops(double n) {
  const std::pair<double, const char*> units[] = {{1e24, "YFLOP"}, {1e21, "ZFLOP"}, {1e18, "EFLOP"},
                                                  {1e15, "PFLOP"}, {1e12, "TFLOP"}, {1e9, "GFLOP"}};
  for (const auto& [size, name] : units) {
    if (n >= size) return fmt::format("{:.1f} {}", n / size, name);
  }
  return fmt::format("{:.3f} MFLOP", n * 1e-6);
}

void describe_shapes(const ModelConfig& m, std::string& out) {
  const std::int64_t h = m.hidden_size, q = m.num_attention_heads * m.head_dim, kv = m.num_key_value_heads * m.head_dim;
  std::int64_t moe = 0;
  for (std::int64_t i = 0; i < m.num_hidden_layers; ++i) moe += m.is_moe_layer(i);
  const auto line = [&](std::int64_t count, const char* name, std::int64_t rows, std::int64_t cols) {
    if (count == 0) return;
    const std::string shape = cols == 0 ? fmt::format("[{}]", rows) : fmt::format("[{}, {}]", rows, cols);
    out += fmt::format("  {:<48} {:<16} x {:>6}  {:>18}\n", name, shape, count, grouped(count * rows * std::max<std::int64_t>(cols, 1)));
  };
  const std::int64_t layers = m.num_hidden_layers, experts = moe * m.num_experts;
  line(1, "model.embed_tokens", m.vocab_size, h);
  line(2 * layers, "layers.*.{input,post_attention}_layernorm", h, 0);
  line(layers, "layers.*.self_attn.q_proj", q, h);
  line(2 * layers, "layers.*.self_attn.{k,v}_proj", kv, h);
  line(2 * layers, "layers.*.self_attn.{q,k}_norm", m.head_dim, 0);
  line(layers, "layers.*.self_attn.o_proj", h, q);
  line(2 * (layers - moe), "layers.*.mlp.{gate,up}_proj", m.intermediate_size, h);
  line(layers - moe, "layers.*.mlp.down_proj", h, m.intermediate_size);
  line(moe, "layers.*.mlp.gate", m.num_experts, h);
  line(2 * experts, "layers.*.mlp.experts.*.{gate,up}_proj", m.moe_intermediate_size, h);
  line(experts, "layers.*.mlp.experts.*.down_proj", h, m.moe_intermediate_size);
  line(1, "model.norm", h, 0);
  line(m.tie_word_embeddings ? 0 : 1, "lm_head", m.vocab_size, h);
}

std::string learning_rate_text(const StageConfig& stage, const StagePlan& plan) {
  const LrConfig& lr = stage.lr;
  std::string out;
  if (plan.warmup_iterations > 0)
    out += fmt::format("warm-up {:g} -> {:g} over {:.5g} iterations, then ", lr.lr_warmup_init, lr.lr, plan.warmup_iterations);
  if (lr.lr_decay_style == LrDecayStyle::constant) return out + fmt::format("constant {:g}", lr.lr);
  return out + fmt::format("{} {:g} -> {:g} at iteration {}", name_of(lr.lr_decay_style), lr.lr, lr.min_lr,
                           grouped(lr.lr_decay_iters.value_or(plan.iterations)));
}

std::string parts_of(const ParameterMemory& m) {
  return fmt::format("values {}, gradients {}, master weights {}, moments {}", bytes(m.values), bytes(m.gradients), bytes(m.master), bytes(m.moments));
}

void describe_layout(const StagePlan& plan, std::string& out) {
  const MeshShape& m = plan.layout.mesh;
  if (m.world() == 1) return;
  out += fmt::format("  layout         {}\n", describe(plan.layout));
  if (m.pp > 1) {
    const auto [least, most] = std::minmax_element(plan.simulation.bubble_share.begin(), plan.simulation.bubble_share.end());
    double idle = 0;
    for (double share : plan.simulation.bubble_share) idle += share / m.pp;
    out += fmt::format("  pipeline       {}\n  idle           {:.1f} % of the time ({:.1f} to {:.1f} by rank), by the FLOPs of each stage\n", str(plan.pipeline), 100 * idle,
                       100 * *least, 100 * *most);
  }
  std::string sent;
  const std::pair<const char*, std::vector<Axis>> axes[] = {
      {"TP", {Axis::tp}}, {"CP", {Axis::cp}}, {"EP", {Axis::ep, Axis::etp}}, {"DP", {Axis::dp, Axis::edp}}, {"PP", {Axis::pp}}};
  for (const auto& [name, of] : axes) {
    std::int64_t n = 0;
    for (Axis axis : of) n += plan.sent[axis];
    if (n > 0) sent += fmt::format("{}{} {}", sent.empty() ? "" : ", ", name, bytes(n / m.world()));
  }
  out += fmt::format("  sent           per iteration and rank: {}\n", sent);
}

void describe_memory(const StagePlan& plan, std::string& out) {
  const RankMemory& r = plan.fullest;
  const ActivationMemory& a = r.activations;
  if (plan.layout.mesh.world() > 1)
    out += fmt::format("  fullest rank   {} (pipeline stage {}): {} with {} parameters: {}\n", r.rank, r.pipeline_rank, bytes(r.total()),
                       grouped(r.parameter_count), parts_of(r.parameters));
  out += fmt::format("  activations    {}: kept {}, {}routed {}, transient {}, scratch {}; ", bytes(a.total()), bytes(a.kept),
                     a.delayed > 0 ? fmt::format("for delayed weight gradients {}, ", bytes(a.delayed)) : "", bytes(a.routed), bytes(a.transient), bytes(a.scratch));
  if (r.in_flight > 1) out += fmt::format("{} micro-batches in flight; ", r.in_flight);
  out += fmt::format("messages {}, {}inputs {}\n", bytes(r.messages), r.staging > 0 ? fmt::format("sums {}, ", bytes(r.staging)) : "", bytes(r.inputs));
  if (plan.moving > 0) out += fmt::format("  at its begin   the state moves to this layout: at most {} on a rank\n", bytes(plan.moving));
}

void describe_stage(const Config& config, const StageConfig& stage, const StagePlan& plan, std::string& out) {
  out += fmt::format("  length         {} iterations, {} sequences of {}, {} tokens\n", grouped(plan.iterations), grouped(plan.sequences),
                     grouped(stage.seq_length), grouped(plan.tokens));
  out += fmt::format("  per iteration  {} sequences, {} tokens, {} micro-batches of {}{}\n", grouped(stage.global_batch_size),
                     grouped(stage.tokens_per_iteration()), grouped(plan.micro_batches), stage.micro_batch_size,
                     plan.layout.mesh.dp > 1 ? " on each data-parallel rank" : "");
  if (stage.packing == Packing::best_fit) out += "  packing        best_fit; the share of masked tokens is known when the documents' lengths are read\n";
  if (stage.loss_roles) out += fmt::format("  targets        of the roles {} alone\n", names_of(*stage.loss_roles));
  out += fmt::format("  learning rate  {}\n", learning_rate_text(stage, plan));
  out +=
      fmt::format("  RoPE           theta {}{}\n", stage.rope.theta,
                  stage.rope.yarn ? fmt::format(", YaRN {} x {}", stage.rope.yarn->factor, stage.rope.yarn->original_max_position_embeddings) : "");
  out += fmt::format("  model FLOPs    {} per token, {} per iteration, {} in all (whole documents per sequence; packed ones take fewer)\n",
                     flops(plan.flops_per_token), flops(plan.flops_per_token * double(stage.tokens_per_iteration())), flops(plan.flops));
  if (config.runtime.peak_tflops > 0)
    out += fmt::format("  time           at least {} (MFU 100 %)\n", duration(plan.flops / config.runtime.peak_tflops * 1e-12));
  describe_layout(plan, out);
  describe_memory(plan, out);
  for (std::size_t i = 0; i < plan.changes.size(); ++i) out += fmt::format("  {:<14} {}\n", i == 0 ? "changes" : "", plan.changes[i]);
}

void describe_peak(const Config& config, const Plan& plan, std::string& out) {
  const auto fullest = std::max_element(plan.stages.begin(), plan.stages.end(), [](const StagePlan& a, const StagePlan& b) { return a.bytes() < b.bytes(); });
  const RankMemory& r = fullest->fullest;
  out += fmt::format("memory in {}: {}{} = ", name_of(plan.dtype), bytes(plan.peak_bytes()),
                     plan.ranks > 1 ? fmt::format(" on the fullest of {} ranks", plan.ranks) : "");
  if (fullest->moving > r.total()) {
    out += fmt::format("{} while the training state moves to the layout of {}", bytes(fullest->moving), config.stages[std::size_t(fullest - plan.stages.begin())].name);
  } else {
    const ParameterMemory& m = r.parameters;
    out += fmt::format("parameters {}, gradients {}, master weights {}, moments {}, activations and inputs {}", bytes(m.values), bytes(m.gradients), bytes(m.master),
                       bytes(m.moments), bytes(r.for_steps()));
  }
  out += fmt::format(", program {}\n", bytes(plan.program_bytes()));
}

}  // namespace

std::string describe_plan(const Config& config, const Plan& plan) {
  const ModelConfig& m = config.model;
  const ParameterCounts& n = plan.parameters;
  std::string out = fmt::format("model {}, {} layers, hidden {}, {} query and {} key heads of {}", m.model_type, m.num_hidden_layers, m.hidden_size,
                                m.num_attention_heads, m.num_key_value_heads, m.head_dim);
  if (m.num_experts > 0) out += fmt::format(", {} experts of {}, {} per token", m.num_experts, m.moe_intermediate_size, m.num_experts_per_tok);
  out += "\n";
  describe_shapes(m, out);
  out += fmt::format("parameters {} in {} tensors, active per token {}\n", grouped(n.total()), grouped(n.tensors), grouped(n.active()));
  describe_peak(config, plan, out);
  if (plan.machine_bytes > 0) {
    const std::int64_t fit = plan.machine_bytes / plan.peak_bytes();
    out += fmt::format("  this machine has {}{}\n", bytes(plan.machine_bytes),
                       fit == 0         ? ": the run does not fit"
                       : plan.ranks > 1 ? fmt::format(": room for {} such ranks", fit)
                                        : "");
  }
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    out += fmt::format("stage {} of {}: {}\n", i + 1, plan.stages.size(), config.stages[i].name);
    describe_stage(config, config.stages[i], plan.stages[i], out);
  }
  for (const std::string& message : missing_files(config)) out += fmt::format("missing: {}\n", message);
  return out;
}

const StagePlan& pipelined_stage(const Config& config, const Plan& plan, const std::string& name) {
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    if (!name.empty() && config.stages[i].name != name) continue;
    if (plan.stages[i].layout.mesh.pp > 1) return plan.stages[i];
    if (!name.empty()) user_error("stage {} has no pipeline: pipeline_model_parallel_size is 1", name);
  }
  if (!name.empty()) user_error("there is no stage {}", name);
  user_error("no stage has a pipeline: pipeline_model_parallel_size is 1");
}

std::string small_drawing(const StagePlan& stage) {
  constexpr std::size_t kColumns = 200, kLines = 32;
  std::string text = draw_text(stage.schedule, stage.simulation);
  return text.find('\n') > kColumns || stage.simulation.timeline.size() > kLines ? "" : text;
}

}  // namespace af
