#include "launch/plan.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "core/error.h"
#include "data/batch_stream.h"
#include "launch/config_checks.h"
#include "launch/config_yaml.h"
#include "launch/environment.h"
#include "launch/lr_schedule.h"
#include "launch/metrics.h"
#include "launch/yaml_node.h"

namespace af {
namespace {

std::string grouped(std::int64_t n) {  // 30,532,122,624
  std::string text = fmt::format("{}", n);
  for (std::ptrdiff_t at = std::ptrdiff_t(text.size()) - 3; at > (n < 0 ? 1 : 0); at -= 3) text.insert(std::size_t(at), ",");
  return text;
}

std::string bytes(std::int64_t n) {
  const double mib = double(n) / 1048576;
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

// The global batch and, for validation, a micro-batch, each as the stream gives it and as the device takes it; sequences read ahead;
// cos and sin of RoPE.
std::int64_t input_bytes(const Config& config, const StageConfig& stage, DType dtype) {
  const std::int64_t device = 3 * std::int64_t(sizeof(std::int32_t)), sequence = device + 1;  // bytes per token: PackedSequence has roles
  const std::int64_t batch = stage.global_batch_size + stage.micro_batch_size;
  const std::int64_t rope = std::int64_t(size_of(accumulator_of(dtype))) * config.model.head_dim;
  return stage.seq_length * (batch * device + (batch + SequenceStream::sequences_ahead(stage.global_batch_size, stage.seq_length)) * sequence + rope);
}

// "a 55%, b 45%"
std::string mix(const YamlNode& data) {
  double all = 0;
  std::string out;
  for (const YamlNode& source : data.items) all += std::stod(source.find("weight")->text);
  for (const YamlNode& source : data.items) {
    out += fmt::format("{}{} {:.3g}%", out.empty() ? "" : ", ", source.find("name")->text, 100 * std::stod(source.find("weight")->text) / all);
  }
  return out;
}

std::string value_text(const std::string& path, const YamlNode* node) {
  if (node == nullptr || node->kind == YamlNode::Kind::null) return "none";
  if (path == "data") return mix(*node);
  if (node->kind == YamlNode::Kind::scalar) return node->text;
  std::string out;
  for (const YamlNode& item : node->items) out += (out.empty() ? "" : ", ") + item.text;
  for (const auto& [key, value] : node->entries) out += (out.empty() ? "" : ", ") + key.text + " " + value.text;
  return out;
}

// Every key that differs, from the printed configuration, so that none is forgotten.
void compare(const std::string& path, const YamlNode& before, const YamlNode& now, std::vector<std::string>& out) {
  std::vector<std::string> keys;
  for (const YamlNode* stage : {&before, &now}) {
    for (const auto& [key, value] : stage->entries) {
      if (std::find(keys.begin(), keys.end(), key.text) == keys.end()) keys.push_back(key.text);
    }
  }
  for (const std::string& key : keys) {
    const YamlNode *a = before.find(key), *b = now.find(key);
    const std::string name = path.empty() ? key : path + "." + key;
    if (a != nullptr && b != nullptr && a->kind == YamlNode::Kind::map && b->kind == YamlNode::Kind::map) {
      compare(name, *a, *b, out);
    } else if (const std::string x = value_text(name, a), y = value_text(name, b); x != y && name != "name") {
      out.push_back(fmt::format("{}: {} -> {}", name, x, y));
    }
  }
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

void describe_stage(const Config& config, const StageConfig& stage, const StagePlan& plan, std::string& out) {
  const ActivationMemory& a = plan.activations;
  out += fmt::format("  length         {} iterations, {} sequences of {}, {} tokens\n", grouped(plan.iterations), grouped(plan.sequences),
                     grouped(stage.seq_length), grouped(plan.tokens));
  out += fmt::format("  per iteration  {} sequences, {} tokens, {} micro-batches of {}\n", grouped(stage.global_batch_size),
                     grouped(stage.tokens_per_iteration()), grouped(plan.micro_batches), stage.micro_batch_size);
  if (stage.packing == Packing::best_fit) out += "  packing        best_fit; the share of masked tokens is known when the documents' lengths are read\n";
  out += fmt::format("  learning rate  {}\n", learning_rate_text(stage, plan));
  out +=
      fmt::format("  RoPE           theta {}{}\n", stage.rope.theta,
                  stage.rope.yarn ? fmt::format(", YaRN {} x {}", stage.rope.yarn->factor, stage.rope.yarn->original_max_position_embeddings) : "");
  out += fmt::format("  model FLOPs    {} per token, {} per iteration, {} in all (whole documents per sequence; packed ones take fewer)\n",
                     flops(plan.flops_per_token), flops(plan.flops_per_token * double(stage.tokens_per_iteration())), flops(plan.flops));
  if (config.runtime.peak_tflops > 0)
    out += fmt::format("  time           at least {} (MFU 100 %)\n", duration(plan.flops / config.runtime.peak_tflops * 1e-12));
  out += fmt::format("  activations    {}: kept {}, routed {}, transient {}, scratch {}; inputs {}\n", bytes(a.total()), bytes(a.kept),
                     bytes(a.routed), bytes(a.transient), bytes(a.scratch), bytes(plan.inputs));
  for (std::size_t i = 0; i < plan.changes.size(); ++i) out += fmt::format("  {:<14} {}\n", i == 0 ? "changes" : "", plan.changes[i]);
}

}  // namespace

std::int64_t Plan::peak_bytes() const {
  std::int64_t most = 0;
  for (const StagePlan& stage : stages) most = std::max(most, stage.bytes());
  return kProgramBytes + memory.total() + most;
}

Plan make_plan(const Config& config) {
  Plan plan;
  plan.dtype = compute_dtype(config.runtime);
  plan.parameters = count_parameters(config.model);
  plan.memory = parameter_memory(config.model, plan.dtype);
  plan.machine_bytes = std::int64_t(sysconf(_SC_PHYS_PAGES)) * std::int64_t(sysconf(_SC_PAGESIZE));
  const YamlNode printed = parse_yaml(to_yaml(config), "resolved configuration");
  const YamlNode* stages = printed.find("stages");
  for (std::size_t i = 0; i < config.stages.size(); ++i) {
    const StageConfig& stage = config.stages[i];
    StagePlan p;
    p.iterations = stage.train_iters();
    p.sequences = p.iterations * stage.global_batch_size;
    p.tokens = p.sequences * stage.seq_length;
    p.micro_batches = stage.num_microbatches(1);
    p.warmup_iterations = warmup_samples(stage.lr, stage.steps()) / double(stage.global_batch_size);
    p.flops_per_token = model_flops(config.model, 1, double(stage.seq_length));
    p.flops = p.flops_per_token * double(p.tokens);
    p.activations = activation_memory(config.model, stage.recompute, plan.dtype, stage.micro_batch_size * stage.seq_length, stage.micro_batch_size);
    p.inputs = input_bytes(config, stage, plan.dtype);
    if (i > 0) compare("", stages->items[i - 1], stages->items[i], p.changes);
    plan.stages.push_back(std::move(p));
  }
  return plan;
}

std::string describe_plan(const Config& config, const Plan& plan) {
  const ModelConfig& m = config.model;
  const ParameterCounts& n = plan.parameters;
  const ParameterMemory& memory = plan.memory;
  std::string out = fmt::format("model {}, {} layers, hidden {}, {} query and {} key heads of {}", m.model_type, m.num_hidden_layers, m.hidden_size,
                                m.num_attention_heads, m.num_key_value_heads, m.head_dim);
  if (m.num_experts > 0) out += fmt::format(", {} experts of {}, {} per token", m.num_experts, m.moe_intermediate_size, m.num_experts_per_tok);
  out += "\n";
  describe_shapes(m, out);
  out += fmt::format("parameters {} in {} tensors, active per token {}\n", grouped(n.total()), grouped(n.tensors), grouped(n.active()));
  out += fmt::format("memory in {}: {} = parameters {}, gradients {}, master weights {}, moments {}, activations and inputs {}, program {}\n", name_of(plan.dtype),
                     bytes(plan.peak_bytes()), bytes(memory.values), bytes(memory.gradients), bytes(memory.master), bytes(memory.moments),
                     bytes(plan.peak_bytes() - memory.total() - kProgramBytes), bytes(kProgramBytes));
  if (plan.machine_bytes > 0) {
    out +=
        fmt::format("  this machine has {}{}\n", bytes(plan.machine_bytes), plan.peak_bytes() > plan.machine_bytes ? ": the run does not fit" : "");
  }
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    out += fmt::format("stage {} of {}: {}\n", i + 1, plan.stages.size(), config.stages[i].name);
    describe_stage(config, config.stages[i], plan.stages[i], out);
  }
  for (const std::string& message : missing_files(config)) out += fmt::format("missing: {}\n", message);
  return out;
}

}  // namespace af
