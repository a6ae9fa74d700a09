// The formulas of models/communication.h and models/memory.h against steps of layouts with ranks as threads: bytes that Comm counted, bytes
// that the arenas handed out.
#include "models/communication.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <mutex>

#include <fmt/format.h>

#include "core/ops/elementwise.h"
#include "core/random.h"
#include "launch/plan.h"
#include "models/memory.h"
#include "tests/equivalence/run.h"

namespace af::test {
namespace {

// Documents of any length. Every sequence of a data-parallel rank is the same one: so are all its micro-batches, whatever slot keeps them.
PackedSequence sequence_of(int dp, std::int64_t vocab) {
  PackedSequence s;
  s.document_begins = {0};
  std::uint64_t draw = 0;
  auto below = [&](std::int64_t n) { return std::int64_t(random_below(8, std::uint64_t(dp), draw++, std::uint64_t(n))); };
  while (std::int64_t(s.tokens.size()) < kSequence) {
    const std::int64_t n = std::min<std::int64_t>(4 + below(dp % 2 ? 9 : 20), kSequence - std::int64_t(s.tokens.size()));
    for (std::int64_t i = 0; i < n; ++i) {
      s.tokens.push_back(std::int32_t(std::min(below(vocab), below(vocab))));  // small ids are frequent: experts are not chosen equally often
      s.positions.push_back(std::int32_t(i));
      s.targets.push_back(i + 1 < n ? std::int32_t(below(vocab)) : -1);
    }
    s.document_begins.push_back(std::int64_t(s.tokens.size()));
  }
  return s;
}

// Expert e of a token: the two that its id says.
bool chooses(std::int32_t token, std::int64_t expert) { return token % 8 == expert || (token + 3) % 8 == expert; }

// What comes to the routers is the token's embedding, which names the experts: then the rows that move are known beforehand.
void set_known_routing(ParallelModel& model) {
  for (Parameter& p : model.parameters().parameters())
    for (const Slab& slab : p.slabs) {
      const Tensor view = slab_view(slab, p.value);
      auto set = [&](auto value_of) {
        for (std::int64_t r = 0; r < slab.rows; ++r)
          for (std::int64_t c = 0; c < slab.cols; ++c) fill(model.context(), view.slice_rows(r, r + 1).slice_cols(c, c + 1), value_of(slab.row_begin + r, slab.col_begin + c));
      };
      if (slab.name.ends_with("o_proj.weight") || slab.name.ends_with("down_proj.weight")) set([](auto, auto) { return 0.0; });
      if (slab.name.ends_with("embed_tokens.weight")) set([](auto token, auto c) { return token % 8 == c ? 1.0 : 0.0; });
      if (slab.name.ends_with("mlp.gate.weight")) set([](auto e, auto c) { return c >= 8 ? 0.0 : c == e ? 2.0 : (c + 3) % 8 == e ? 1.0 : 0.0; });
    }
}

BalanceSettings balance_settings(const Case& c, double memory_factor) {
  BalanceSettings balance = balance_of(c);
  balance.memory_factor = memory_factor;
  return balance;
}

struct Measured {
  AxisBytes sent;                             // of all ranks, in one step
  std::vector<ActivationMemory> activations;  // of each rank
  std::vector<std::size_t> messages;          // bytes of its executor's buffers
  std::vector<std::size_t> values;            // bytes of its flat buffers
  std::vector<std::int64_t> state;            // and of its optimizer's
};

// memory_factor: large enough for every layer to run in one round, unless it is given.
Measured measure(const Case& c, double memory_factor = 100) {
  const MeshShape& m = c.layout.mesh;
  const ModelConfig config = model_of(c);
  Measured all;
  all.activations.resize(std::size_t(m.world()));
  all.messages.resize(std::size_t(m.world()));
  all.values.resize(std::size_t(m.world()));
  all.state.resize(std::size_t(m.world()));
  std::mutex mutex;
  auto rank = [&](const Comm& world) {
    ParallelModel model(config, Device{}, c.dtype, c.layout, world);
    initialize(model.context(), model.parameters(), 3, config.initializer_range);
    set_known_routing(model);
    model.optimizer().reset_master(model.context());
    const RecomputeSettings recompute = recompute_of(c);
    const BalanceSettings balance = balance_settings(c, memory_factor);
    const std::int64_t micro_batches = kSequences / m.dp / c.micro_batch_size;
    model.begin_stage(config.rope, kSequence, c.micro_batch_size, micro_batches, {recompute, balance});
    const MeshPosition& at = model.mesh().position;
    GlobalBatch batch(Device{}, kSequence, c.micro_batch_size, micro_batches, m.cp, at.cp);
    batch.assign(std::vector<PackedSequence>(std::size_t(kSequences / m.dp), sequence_of(at.dp, config.vocab_size)));
    const AxisBytes before = world.bytes();
    model.forward_backward(batch, {recompute, balance});
    model.update({}, 1e-3);
    model.gatherer().finish();
    const AxisBytes after = world.bytes();
    std::lock_guard lock(mutex);
    for (int a = 0; a < kAxes; ++a) all.sent.sent[std::size_t(a)] += after.sent[std::size_t(a)] - before.sent[std::size_t(a)];
    all.activations[std::size_t(world.rank())] = model.activations();
    all.messages[std::size_t(world.rank())] = model.executor().bytes();
    all.values[std::size_t(world.rank())] = model.parameters().values().bytes();
    for (int b = 0; b < int(model.parameters().buckets().size()); ++b)
      for (OptimizerState s : {OptimizerState::master, OptimizerState::exp_avg, OptimizerState::exp_avg_sq})
        if (s != OptimizerState::master || c.dtype == DType::bf16) all.state[std::size_t(world.rank())] += std::int64_t(model.optimizer().state(s, b).bytes());
  };
  if (m.world() == 1) rank(Comm());
  else run_ranks(m.world(), {}, rank);
  return all;
}

StepShape shape_of(const Case& c) {
  StepShape s;
  s.mesh = c.layout.mesh;
  s.stages = pipeline_layout_of(model_of(c), c.layout);
  s.dtype = c.dtype;
  s.seq_length = kSequence;
  s.micro_batch_size = c.micro_batch_size;
  s.micro_batches = kSequences / s.mesh.dp / c.micro_batch_size;
  s.recompute = recompute_of(c);
  s.balance = c.balance;
  s.capacity = c.capacity > 0;
  s.bucket_numel = c.layout.bucket_numel;
  return s;
}

// Tokens of one micro-batch that a rank's routers see.
std::vector<std::int32_t> routed_tokens(const Case& c, int rank) {
  const MeshShape& m = c.layout.mesh;
  const MeshPosition at = position_of(m, rank);
  const PackedSequence sequence = sequence_of(at.dp, model_of(c).vocab_size);
  std::vector<std::int32_t> tokens;
  for (std::int64_t s = 0; s < c.micro_batch_size; ++s)
    for (Range r : context_chunks(kSequence, m.cp, at.cp)) tokens.insert(tokens.end(), sequence.tokens.begin() + r.begin, sequence.tokens.begin() + r.end);
  const std::int64_t local = std::int64_t(tokens.size()) / (m.sequence_parallel ? m.tp : 1), first = m.sequence_parallel ? at.tp * local : 0;
  return {tokens.begin() + first, tokens.begin() + first + local};
}

// Rows of a micro-batch that rank `from` has for the experts of the ranks with ep = `ep`.
std::int64_t rows_for(const Case& c, int from, int ep) {
  const Range experts = part_of(8, c.layout.mesh.ep, ep);
  std::int64_t rows = 0;
  for (std::int32_t token : routed_tokens(c, from))
    for (std::int64_t e = experts.begin; e < experts.end; ++e) rows += chooses(token, e);
  return rows;
}

MovedRows moved_rows(const Case& c) {
  const MeshShape& m = c.layout.mesh;
  const ModelConfig config = model_of(c);
  const StepShape shape = shape_of(c);
  MovedRows rows;
  for (int dp = 0; dp < m.dp; ++dp) {
    const PackedSequence s = sequence_of(dp, config.vocab_size);
    std::vector<AttentionSegment> documents;
    for (std::int64_t i = 0; i < c.micro_batch_size; ++i)
      for (std::size_t d = 0; d + 1 < s.document_begins.size(); ++d) {
        const std::int64_t begin = i * kSequence + s.document_begins[d], end = i * kSequence + s.document_begins[d + 1];
        documents.push_back({begin, end, begin, end});
      }
    for (int r = 0; r < m.cp; ++r) {
      ContextPlan plan;
      plan.make(documents, c.micro_batch_size, kSequence, m.cp, r);
      for (int to = 0; to < m.cp; ++to) rows.keys += to == r ? 0 : plan.send_rows[std::size_t(to)] * shape.micro_batches;
    }
  }
  std::int64_t away = 0;
  for (int r = 0; r < m.world() / m.pp && config.num_experts > 0; ++r)
    for (int ep = 0; ep < m.ep; ++ep) away += ep == position_of(m, r).ep ? 0 : rows_for(c, r, ep) * shape.micro_batches;
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) rows.experts.push_back(config.is_moe_layer(i) ? away : 0);
  return rows;
}

// Rows that come to a rank's experts in a micro-batch.
std::int64_t expert_rows(const Case& c, int rank) {
  const MeshShape& m = c.layout.mesh;
  const MeshPosition at = position_of(m, rank);
  std::int64_t rows = 0;
  for (int from = 0; from < m.world() / m.pp; ++from)
    if (position_of(m, from).edp == at.edp) rows += rows_for(c, from, at.ep);
  return rows;
}

// Micro-batches of a chunk that a rank holds at once.
std::vector<int> in_flight(const ScheduleShape& shape, int rank) {
  std::vector<int> now(std::size_t(shape.virtual_size)), most = now;
  const Action::Kind last = shape.kind == ScheduleKind::zero_bubble ? Action::backward_weight : Action::backward;
  for (const Action& a : make_schedule(shape, rank)) {
    int& n = now[std::size_t(a.chunk)];
    n += a.kind == Action::forward ? 1 : a.kind == last ? -1 : 0;
    most[std::size_t(a.chunk)] = std::max(most[std::size_t(a.chunk)], n);
  }
  return most;
}

void expect_bytes(const Case& c, const Measured& measured) {
  const AxisBytes expected = step_bytes(model_of(c), shape_of(c), moved_rows(c));
  for (Axis a : {Axis::tp, Axis::cp, Axis::ep, Axis::etp, Axis::dp, Axis::edp, Axis::pp}) EXPECT_EQ(measured.sent[a], expected[a]) << name_of(a) << " of " << c.name();
  EXPECT_LT(measured.sent[Axis::world], 2048 * c.layout.mesh.world()) << c.name();
}

// What a rank keeps in its slots, and computes again; `change` makes a mutant of what is planned.
ActivationMemory planned_memory(const Case& c, int rank, const std::function<void(ActivationShape&, RecomputeSettings&)>& change = {}) {
  const MeshShape& m = c.layout.mesh;
  const ModelConfig config = model_of(c);
  const StepShape step = shape_of(c);
  const int pp = position_of(m, rank).pp;
  const std::vector<int> held = in_flight({c.layout.schedule, m.pp, c.layout.virtual_size, int(step.micro_batches), c.layout.virtual_group}, pp);
  ActivationMemory all;
  for (int chunk = 0; chunk < c.layout.virtual_size; ++chunk) {
    ActivationShape shape{step.tokens(), c.micro_batch_size, step.stages[std::size_t(chunk * m.pp + pp)], m};
    shape.delayed = c.layout.schedule == ScheduleKind::zero_bubble;
    if (config.num_experts > 0) shape.expert_rows = expert_rows(c, rank);
    RecomputeSettings recompute = step.recompute;
    if (change) change(shape, recompute);
    const ActivationMemory memory = activation_memory(config, recompute, c.dtype, shape);
    all.kept += held[std::size_t(chunk)] * (memory.kept + memory.delayed);
    all.routed += held[std::size_t(chunk)] * memory.routed;
    all.transient += memory.transient;
  }
  return all;
}

void expect_memory(const Case& c, const Measured& measured) {
  const MeshShape& m = c.layout.mesh;
  for (int r = 0; r < m.world(); ++r) {
    const MeshPosition at = position_of(m, r);
    const RankParameters rank = rank_parameters(model_of(c), m, shape_of(c).stages, at.pp, at.tp, c.layout.bucket_numel);
    const ParameterMemory parameters = rank.memory(c.dtype);
    EXPECT_EQ(parameters.values, std::int64_t(measured.values[std::size_t(r)])) << c.name() << " rank " << r;
    EXPECT_EQ(parameters.state(), measured.state[std::size_t(r)]) << c.name() << " rank " << r;
    const ActivationMemory planned = planned_memory(c, r), &found = measured.activations[std::size_t(r)];
    EXPECT_EQ(found.kept, planned.kept) << c.name() << " rank " << r;
    EXPECT_EQ(found.routed, planned.routed) << c.name() << " rank " << r;
    EXPECT_EQ(found.transient, planned.transient) << c.name() << " rank " << r;
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (Case c : fixed_cases()) {
    c.dtype = all.size() % 3 == 0 ? DType::bf16 : all.size() % 3 == 1 ? DType::f32 : DType::f64;
    all.push_back(c);
  }
  for (const Case& c : random_cases(5, 10)) all.push_back(c);
  for (Case& c : all)  // so large that nothing is dropped: then the rows that move are known
    if (c.capacity > 0) c.capacity = 100;
  // Groups of more than 8 ranks have other ways for small parts (models/communication.h).
  std::erase_if(all, [](const Case& c) { return c.layout.mesh.dp * c.layout.mesh.cp > 8 || c.layout.mesh.edp() > 8; });
  return all;
}

TEST(Communication, BytesAndMemoryOfAStep) {
  for (const Case& c : cases()) {
    const Measured measured = measure(c);
    expect_bytes(c, measured);
    expect_memory(c, measured);
  }
}

Case make_case(const char* model, const MeshShape& mesh, const char* recompute = "none", BalanceType balance = BalanceType::none,
               ScheduleKind schedule = ScheduleKind::one_f_one_b, int virtual_size = 1) {
  Case c;
  c.model = model;
  c.layout.mesh = mesh;
  c.layout.schedule = schedule;
  c.layout.virtual_size = virtual_size;
  c.layout.bucket_numel = 500;
  c.recompute = recompute;
  c.balance = balance;
  return c;
}

// Formulas with a term left out, or that take a layout for another: each must differ from what was counted.
TEST(Communication, WrongFormulasAreNoticed) {
  using Change = std::function<void(ModelConfig&, StepShape&, MovedRows&)>;
  struct Mutant {
    const char* what;
    const Case* of;
    Axis axis;
    Change change;
  };
  using S = ScheduleKind;
  const Case all_axes = make_case("moe", {2, 2, 2, 2, 2, 4, true}, "full", BalanceType::seq_aux_loss, S::zero_bubble, 2);  // tp, cp, dp, pp, etp, ep
  const Case no_experts = make_case("dense", {2, 2, 2, 2, 1, 1, true}, "selective"), ends_tied = make_case("tied", {2, 2, 1, 2, 1, 1, true}, "none", {}, S::interleaved, 2);
  const Case by_modules = make_case("moe", {4, 2, 2, 1, 1, 8, true}, "modules", BalanceType::aux_loss), key_replicas = make_case("dense", {8, 1, 1, 1, 1, 1, true});
  const Case expert_copies = make_case("moe", {2, 1, 4, 2, 2, 2, true});
  Case with_capacity = make_case("moe", {2, 1, 1, 1, 1, 2, true});
  with_capacity.capacity = 100;
  const Case *drops = &with_capacity, *full = &all_axes, *dense = &no_experts, *tied = &ends_tied, *modules = &by_modules, *keys = &key_replicas, *copies = &expert_copies;
  const std::vector<Mutant> mutants = {
      {"no sequence parallelism", dense, Axis::tp, [](auto&, auto& s, auto&) { s.mesh.sequence_parallel = false; }},
      {"half the bytes of an element", dense, Axis::tp, [](auto&, auto& s, auto&) { s.dtype = DType::f32; }},
      {"no gradients of norms", dense, Axis::tp, [](auto& m, auto&, auto&) { m.head_dim = 0; }},
      {"no embedding", dense, Axis::tp, [](auto&, auto& s, auto&) { s.stages.front().embedding = false; }},
      {"no head", dense, Axis::tp, [](auto&, auto& s, auto&) { s.stages.back().head = false; }},
      {"as many key heads as ranks", keys, Axis::tp, [](auto& m, auto&, auto&) { m.num_key_value_heads = 8; }},
      {"recomputation gathers nothing", full, Axis::tp, [](auto&, auto& s, auto&) { s.recompute = {}; }},
      {"modules are not entered again", modules, Axis::tp, [](auto&, auto& s, auto&) { s.recompute = {}; }},
      {"the balance loss needs nobody", full, Axis::tp, [](auto&, auto& s, auto&) { s.balance = BalanceType::none; }},
      {"nobody tells what it would drop", drops, Axis::tp, [](auto&, auto& s, auto&) { s.capacity = false; }},
      {"no keys", dense, Axis::cp, [](auto&, auto&, auto& r) { r.keys = 0; }},
      {"keys of whole sequences", dense, Axis::cp, [](auto& m, auto& s, auto& r) { r.keys = expected_rows(m, s).keys; }},
      {"attention is not computed again", dense, Axis::cp, [](auto&, auto& s, auto&) { s.recompute = {}; }},
      {"attention is not computed again", full, Axis::cp, [](auto&, auto& s, auto&) { s.recompute = {}; }},
      {"no rows", full, Axis::ep, [](auto&, auto&, auto& r) { r.experts.assign(r.experts.size(), 0); }},
      {"evenly chosen experts", full, Axis::ep, [](auto& m, auto& s, auto& r) { r.experts = expected_rows(m, s).experts; }},
      {"tokens go once", full, Axis::ep, [](auto&, auto& s, auto&) { s.recompute = {}; }},
      {"tokens go once", modules, Axis::ep, [](auto&, auto& s, auto&) { s.recompute = {}; }},
      {"tokens go once", full, Axis::etp, [](auto&, auto& s, auto&) { s.recompute = {}; }},
      {"one expert per token", full, Axis::etp, [](auto& m, auto&, auto&) { m.num_experts_per_tok = 1; }},
      {"one boundary less", full, Axis::pp, [](auto&, auto& s, auto&) { s.stages.pop_back(); }},
      {"an embedding that is not tied", tied, Axis::pp, [](auto& m, auto&, auto&) { m.tie_word_embeddings = false; }},
      {"a micro-batch less", tied, Axis::pp, [](auto&, auto& s, auto&) { s.micro_batches -= 1; }},
      {"half the bytes of a gradient", dense, Axis::dp, [](auto&, auto& s, auto&) { s.dtype = DType::f32; }},
      {"buckets without padding", dense, Axis::dp, [](auto&, auto& s, auto&) { s.bucket_numel = 1; }},
      {"a layer elsewhere", copies, Axis::edp, [](auto&, auto& s, auto&) { s.stages[1] = s.stages[0]; }},
  };
  std::map<const Case*, Measured> runs;
  for (const Mutant& mutant : mutants) {
    const Case& c = *mutant.of;
    if (!runs.contains(mutant.of)) expect_bytes(c, runs[mutant.of] = measure(c));
    ModelConfig model = model_of(c);
    StepShape shape = shape_of(c);
    MovedRows rows = moved_rows(c);
    mutant.change(model, shape, rows);
    EXPECT_NE(step_bytes(model, shape, rows)[mutant.axis], runs[mutant.of].sent[mutant.axis]) << mutant.what << ", " << name_of(mutant.axis) << " of " << c.name();
  }
}

TEST(Communication, WrongMemoryIsNoticed) {
  using Change = std::function<void(ActivationShape&, RecomputeSettings&)>;
  const std::vector<std::pair<const char*, Change>> mutants = {
      {"nothing for delayed weight gradients", [](auto& s, auto&) { s.delayed = false; }},
      {"nothing is computed again", [](auto&, auto& r) { r = {}; }},
      {"tokens of all ranks of tp", [](auto& s, auto&) { s.mesh.sequence_parallel = false; }},
      {"heads of all ranks of tp", [](auto& s, auto&) { s.mesh.tp = 1; }},
      {"whole experts", [](auto& s, auto&) { s.mesh.etp = 1; }},
      {"evenly chosen experts", [](auto& s, auto&) { s.expert_rows = -1; }},
      {"a layer more", [](auto& s, auto&) { ++s.stage.end; }},
  };
  const Case c = make_case("moe", {2, 2, 2, 2, 2, 4, true}, "full", BalanceType::none, ScheduleKind::zero_bubble, 2);
  const ActivationMemory found = measure(c).activations[0];
  auto total = [](const ActivationMemory& m) { return m.kept + m.routed + m.transient; };
  EXPECT_EQ(total(planned_memory(c, 0)), total(found));
  for (const auto& [what, change] : mutants) EXPECT_NE(total(planned_memory(c, 0, change)), total(found)) << what;
}

Config config_of(const Case& c) {
  const MeshShape& m = c.layout.mesh;
  Config config;
  config.model = model_of(c);
  config.runtime.precision = c.dtype == DType::f64 ? RuntimeConfig::Precision::fp64 : c.dtype == DType::f32 ? RuntimeConfig::Precision::fp32 : RuntimeConfig::Precision::bf16;
  StageConfig stage;
  stage.name = "stage";
  stage.seq_length = kSequence;
  stage.length = {TrainLength::Unit::iters, 1};
  stage.micro_batch_size = c.micro_batch_size;
  stage.global_batch_size = kSequences;
  stage.recompute = recompute_of(c);
  stage.moe = balance_settings(c, 1.5);
  stage.parallel.tensor_model_parallel_size = m.tp;
  stage.parallel.pipeline_model_parallel_size = m.pp;
  stage.parallel.virtual_pipeline_model_parallel_size = c.layout.virtual_size;
  stage.parallel.pipeline_model_parallel_layout = c.layout.pipeline_layout;
  stage.parallel.context_parallel_size = m.cp;
  stage.parallel.sequence_parallel = m.sequence_parallel;
  stage.parallel.expert_model_parallel_size = m.ep;
  stage.parallel.expert_tensor_parallel_size = m.etp;
  stage.pipeline.schedule = c.layout.schedule;
  config.stages = {stage};
  return config;
}

// The plan of the fullest rank beside what its arenas took: dense models to the byte, experts as far as routing does not need less.
TEST(Communication, ThePlansFullestRank) {
  int pipelines = 0;
  for (Case c : cases()) {
    if (c.layout.mesh.pp == 1 || pipelines++ % 2) continue;
    const Plan plan = make_plan(config_of(c), c.layout.mesh.world());
    c.layout.bucket_numel = plan.stages[0].layout.bucket_numel;
    const Measured measured = measure(c, 1.5);
    ASSERT_EQ(plan.stages[0].layout.mesh, c.layout.mesh) << c.name();
    const RankMemory& r = plan.stages[0].fullest;
    const ActivationMemory& found = measured.activations[std::size_t(r.rank)];
    EXPECT_EQ(r.parameters.values, std::int64_t(measured.values[std::size_t(r.rank)])) << c.name();
    EXPECT_EQ(r.parameters.state(), measured.state[std::size_t(r.rank)]) << c.name();
    const std::int64_t planned = r.activations.in_flight(), taken = found.kept + found.routed;
    EXPECT_GE(planned, taken) << c.name();
    EXPECT_EQ(c.model == "moe" ? std::min(planned, taken) : planned, taken) << c.name();
    // Buffers of messages: planned as if each left at once; at worst all of a step are on their way together.
    const StepShape step = shape_of(c);
    const std::int64_t buffer = step.local_tokens() * model_of(c).hidden_size * std::int64_t(size_of(c.dtype));
    const std::int64_t messages = std::int64_t(measured.messages[std::size_t(r.rank)]);
    EXPECT_GE(messages, r.messages) << c.name();
    EXPECT_LE(messages, r.messages + 2 * step.micro_batches * c.layout.virtual_size * buffer) << c.name();
  }
}

}  // namespace
}  // namespace af::test
