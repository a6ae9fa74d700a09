#include "launch/plan.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "data/batch_stream.h"
#include "launch/config_yaml.h"
#include "launch/environment.h"
#include "launch/lr_schedule.h"
#include "launch/yaml_node.h"
#include "models/moe.h"
#include "parallel/placement.h"

namespace af {
namespace {

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

// This rank's part of the global batch and, for validation, a micro-batch, each as the stream gives it and as the device takes it; sequences
// read ahead; cos and sin of RoPE for each chunk of layers.
std::int64_t input_bytes(const Config& config, const StageConfig& stage, DType dtype, const ParallelLayout& layout) {
  const std::int64_t device = 3 * std::int64_t(sizeof(std::int32_t)), sequence = device + 1;  // bytes per token: PackedSequence has roles
  const std::int64_t own = stage.global_batch_size / layout.mesh.dp, batch = own + stage.micro_batch_size;
  const std::int64_t rope = std::int64_t(size_of(accumulator_of(dtype))) * config.model.head_dim * layout.virtual_size;
  return stage.seq_length * (batch * device / layout.mesh.cp + (batch + SequenceStream::sequences_ahead(own, stage.seq_length)) * sequence + rope);
}

// Seconds of one micro-batch on a device of 1 FLOP/s, and nothing else. As much as is computed: with what is computed again.
std::vector<StageCosts> costs_of(const ModelConfig& model, const StepShape& shape) {
  const double tokens = double(shape.micro_batch_size * shape.seq_length), squares = tokens * double(shape.seq_length);
  const double ranks = shape.mesh.tp * shape.mesh.cp;
  const RecomputeSettings& again = shape.recompute;
  auto flops_of = [&](bool is_moe) {
    ModelConfig one = model;
    one.num_hidden_layers = 1, one.decoder_sparse_step = 1;
    one.mlp_only_layers = is_moe ? std::vector<std::int64_t>{} : std::vector<std::int64_t>{0};
    return model_flops_by_part(one, tokens, squares);
  };
  const ModelFlops dense = flops_of(false), sparse = flops_of(true);
  std::vector<StageCosts> layers;
  for (const StageLayers& stage : shape.stages)
    for (std::int64_t i = stage.begin; i < stage.end; ++i) {
      const ModelFlops& f = model.is_moe_layer(i) ? sparse : dense;
      const double products = (f.projections + f.mlp + f.router) / 3, attention = f.attention / 3;  // of a forward
      StageCosts c{products + attention, products + 2 * attention, products, 0};
      if (again_of(again, stage, i).forward) c.backward_input += c.forward;
      if (again.core_attn) c.backward_input += attention;
      if (model.is_moe_layer(i) ? again.moe : again.mlp) c.backward_input += f.mlp / 3 * 2 / 3;  // gate and up
      for (double* seconds : {&c.forward, &c.backward_input, &c.backward_weight}) *seconds /= ranks;
      layers.push_back(c);
    }
  const StageCosts none{0, 0, 0, 0}, head{dense.lm_head / ranks, 0, 0, 0};  // the head's gradients come with the loss
  return stage_costs(shape.stages, layers, none, head);
}

// The most micro-batches that a rank holds at once in each of its chunks: from their forward to the end of their backward.
std::vector<int> micro_batches_held(const ScheduleShape& shape, int rank) {
  std::vector<int> now(std::size_t(shape.virtual_size)), most = now;
  for (const Action& a : make_schedule(shape, rank)) {
    int& held = now[std::size_t(a.chunk)];
    if (a.kind == Action::forward) most[std::size_t(a.chunk)] = std::max(most[std::size_t(a.chunk)], ++held);
    else if (a.kind != Action::backward_input) --held;
  }
  return most;
}

// Buffers of the executor: its steps (parallel/pipeline_executor.h) where every message leaves at once.
int message_buffers(const ScheduleShape& shape, int rank) {
  const PipelinePlan plan = make_plan(shape, rank);
  int used = 0, most = 0, posted = 0;
  for (const Step& step : plan.steps) {
    const bool forward = step.action.kind == Action::forward, weight = step.action.kind == Action::backward_weight, first = step.from.none();
    used += step.posted - posted;
    posted = step.posted;
    if (!weight && (forward ? !step.to.none() : first)) ++used;  // its output
    most = std::max(most, used);
    if (weight || step.action.kind == Action::backward)  // the input that was held
      if (step.action.chunk > 0 || rank > 0) --used;
    const bool stays = step.to.rank == rank && !step.to.none();
    if (!weight && !stays && !(forward && step.to.none())) --used;
  }
  return most;
}

// What arrives of sums over ranks (parallel/comm_algorithms.h): of each rank's part from n - 1 others, at most 4 MiB, two sums at a time.
std::int64_t staging_bytes(const ModelConfig& model, const StepShape& shape, const RankParameters& parameters, std::int64_t expert_rows) {
  const MeshShape& m = shape.mesh;
  const std::int64_t row = model.hidden_size * std::int64_t(size_of(shape.dtype)), gradient = std::int64_t(size_of(accumulator_of(shape.dtype)));
  auto of_sum = [](std::int64_t ranks, std::int64_t bytes) { return 2 * std::min<std::int64_t>(4 << 20, bytes / ranks * (ranks - 1)); };
  return of_sum(m.tp, shape.tokens() * row) + of_sum(m.dp * m.cp, parameters.dense * gradient) + of_sum(m.edp(), parameters.experts * gradient) +
         of_sum(m.etp, expert_rows * row);
}

// What a layer computes in an evaluation, all of it for the moment: of the layer that takes most.
std::int64_t evaluation_bytes(const ModelConfig& model, const StepShape& shape, ActivationShape a) {
  RecomputeSettings recompute = shape.recompute;
  recompute.granularity = RecomputeSettings::Granularity::none;
  const StageLayers stage = a.stage;
  std::int64_t most = 0;
  a.delayed = false;
  for (std::int64_t i = stage.begin; i < stage.end; ++i) {
    a.stage = {i, i + 1, false, false};
    most = std::max(most, activation_memory(model, recompute, shape.dtype, a).in_flight());
  }
  return most;
}

RankMemory memory_of(const Config& config, const StageConfig& stage, const StagePlan& plan, const StepShape& shape, int pp) {
  const ModelConfig& model = config.model;
  const MeshShape& m = shape.mesh;
  RankMemory r;
  r.pipeline_rank = pp;
  r.rank = dense_rank(m, 0, 0, 0, pp);
  const RankParameters parameters = rank_parameters(model, m, shape.stages, pp, 0, shape.bucket_numel);
  r.parameter_count = parameters.parameters;
  r.parameters = parameters.memory(shape.dtype);
  const std::vector<int> held = micro_batches_held(plan.schedule, pp);
  const std::int64_t expert_rows = model.num_experts > 0 ? planned_rows(model, m, shape.local_tokens(), stage.moe) : 0;
  for (int c = 0; c < plan.layout.virtual_size; ++c) {
    ActivationShape a{shape.tokens(), shape.micro_batch_size, shape.stages[std::size_t(c * m.pp + pp)], m};
    a.delayed = plan.schedule.kind == ScheduleKind::zero_bubble;
    a.expert_rows = expert_rows;
    const ActivationMemory one = activation_memory(model, shape.recompute, shape.dtype, a);
    const std::int64_t n = held[std::size_t(c)];
    r.activations.kept += n * one.kept;
    r.activations.delayed += n * one.delayed;
    r.activations.routed += n * one.routed;
    r.activations.transient += std::max(one.transient, config.validation.data.empty() ? 0 : evaluation_bytes(model, shape, a));
    r.activations.scratch = std::max(r.activations.scratch, one.scratch);
    r.in_flight += held[std::size_t(c)];
  }
  r.messages = message_buffers(plan.schedule, pp) * shape.local_tokens() * model.hidden_size * std::int64_t(size_of(shape.dtype));
  r.staging = staging_bytes(model, shape, parameters, expert_rows);
  r.inputs = input_bytes(config, stage, shape.dtype, plan.layout);
  return r;
}

StepShape shape_of(const StageConfig& stage, const StagePlan& plan, DType dtype) {
  StepShape shape;
  shape.mesh = plan.layout.mesh;
  shape.stages = plan.pipeline;
  shape.dtype = dtype;
  shape.seq_length = stage.seq_length;
  shape.micro_batch_size = stage.micro_batch_size;
  shape.micro_batches = plan.micro_batches;
  shape.recompute = stage.recompute;
  shape.balance = stage.moe.type;
  shape.capacity = stage.moe.capacity_factor.has_value();
  shape.bucket_numel = plan.layout.bucket_numel;
  return shape;
}

// Old and new state together, as if nothing of the old were freed before all of the new is there (a bucket may hold all of it); the values
// of both where they are the masters themselves; a segment of the three states on its way out, and in those of all ranks, if they meet here.
std::int64_t moving_bytes(const RankMemory& before, const RankMemory& now, DType dtype, int ranks) {
  const bool apart = dtype != accumulator_of(dtype);
  const std::int64_t segment = kMoveSegment * std::int64_t(size_of(accumulator_of(dtype)));
  auto on_the_way = [&](std::int64_t segments, const RankMemory& r) { return 3 * std::min(segments * segment, r.parameters.moments / 2); };
  return (apart ? 0 : before.parameters.values) + now.parameters.values + before.parameters.state() + now.parameters.state() + on_the_way(1, before) +
         on_the_way(ranks, now) + before.activations.transient;
}

}  // namespace

std::int64_t StagePlan::bytes() const { return std::max(fullest.total(), moving); }

std::int64_t Plan::peak_bytes() const {
  std::int64_t most = 0;
  for (const StagePlan& stage : stages) most = std::max(most, stage.bytes());
  return program_bytes() + most;
}

int least_ranks(const Config& config) {
  std::int64_t ranks = 1;
  for (const StageConfig& stage : config.stages) {
    const MeshShape m = layout_of(config.model, stage, 1).mesh;
    ranks = std::lcm(ranks, std::lcm(std::int64_t(m.tp) * m.cp, std::int64_t(m.etp) * m.ep) * m.pp);
  }
  return int(ranks);
}

Plan make_plan(const Config& config, int ranks) {
  Plan plan;
  plan.ranks = ranks;
  plan.dtype = compute_dtype(config.runtime);
  plan.parameters = count_parameters(config.model);
  plan.machine_bytes = std::int64_t(sysconf(_SC_PHYS_PAGES)) * std::int64_t(sysconf(_SC_PAGESIZE));
  const YamlNode printed = parse_yaml(to_yaml(config), "resolved configuration");
  const YamlNode* stages = printed.find("stages");
  for (std::size_t i = 0; i < config.stages.size(); ++i) {
    const StageConfig& stage = config.stages[i];
    StagePlan p;
    p.layout = layout_of(config.model, stage, ranks);
    p.pipeline = pipeline_layout_of(config.model, p.layout);
    p.iterations = stage.train_iters();
    p.sequences = p.iterations * stage.global_batch_size;
    p.tokens = p.sequences * stage.seq_length;
    p.micro_batches = stage.num_microbatches(p.layout.mesh.dp);
    p.warmup_iterations = warmup_samples(stage.lr, stage.steps()) / double(stage.global_batch_size);
    p.flops_per_token = model_flops(config.model, 1, double(stage.seq_length));
    p.flops = p.flops_per_token * double(p.tokens);
    p.schedule = {p.layout.schedule, p.layout.mesh.pp, p.layout.virtual_size, int(p.micro_batches), p.layout.virtual_group};
    const StepShape shape = shape_of(stage, p, plan.dtype);
    if (p.layout.mesh.pp > 1) p.simulation = simulate(p.schedule, costs_of(config.model, shape));
    for (int pp = 0; pp < p.layout.mesh.pp; ++pp)
      if (RankMemory r = memory_of(config, stage, p, shape, pp); pp == 0 || r.total() > p.fullest.total()) p.fullest = r;
    p.sent = step_bytes(config.model, shape, expected_rows(config.model, shape));
    if (i > 0 && !same(p.layout, plan.stages.back().layout)) p.moving = moving_bytes(plan.stages.back().fullest, p.fullest, plan.dtype, ranks);
    if (i > 0) compare("", stages->items[i - 1], stages->items[i], p.changes);
    plan.stages.push_back(std::move(p));
  }
  return plan;
}

}  // namespace af
