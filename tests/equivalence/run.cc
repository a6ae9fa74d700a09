#include "run.h"

#include <fmt/format.h>

#include <cmath>
#include <mutex>

#include "core/ops/elementwise.h"
#include "core/random.h"
#include "parallel/placement.h"

namespace af::test {
namespace {

constexpr std::uint64_t kSeed = 5;

// Packed documents of any length: many short ones, some as long as the sequence; some targets are not counted.
PackedSequence sequence_number(std::int64_t index, std::int64_t vocab) {
  PackedSequence s;
  std::uint64_t draw = 0;
  auto below = [&](std::int64_t n) { return std::int64_t(random_below(kSeed, 100 + std::uint64_t(index), draw++, std::uint64_t(n))); };
  s.document_begins = {0};
  std::int64_t longest = index % 3 == 0 ? kSequence : 11;
  while (std::int64_t(s.tokens.size()) < kSequence) {
    std::int64_t n = std::min<std::int64_t>(1 + below(longest), kSequence - std::int64_t(s.tokens.size()));
    for (std::int64_t i = 0; i < n; ++i) {
      s.tokens.push_back(std::int32_t(below(vocab)));
      s.positions.push_back(std::int32_t(i));
      s.targets.push_back(i + 1 < n && below(7) ? std::int32_t(below(vocab)) : -1);
    }
    s.document_begins.push_back(std::int64_t(s.tokens.size()));
  }
  s.global_index = index;
  return s;
}

std::vector<PackedSequence> sequences_of(const Case& c, const std::vector<std::int64_t>& order, int step, std::int64_t vocab) {
  std::vector<PackedSequence> all;
  for (std::int64_t i : order) all.push_back(c.data ? c.data(step * kSequences + i, vocab) : sequence_number(step * kSequences + i, vocab));
  return all;
}

// Those of one data-parallel rank, in the order of the stream.
std::vector<std::int64_t> order_of(int dp, int rank) {
  std::vector<std::int64_t> order;
  for (std::int64_t i = rank; i < kSequences; i += dp) order.push_back(i);
  return order;
}

double number(const Tensor& t, std::int64_t i) { return t.dtype == DType::f64 ? t.as<double>()[i] : double(t.as<float>()[i]); }

struct Collector {
  std::mutex mutex;
  RunRecord record;
  std::map<std::string, std::vector<int>> gradient_writes, parameter_writes;

  void take(const Tensor& flat, const StatePiece& piece, std::int64_t begin, std::map<std::string, std::vector<double>>& into,
            std::map<std::string, std::vector<int>>& writes) {
    const Shape& shape = piece.slab->global_shape;
    std::int64_t cols = shape.rank > 1 ? shape[1] : 1;
    std::vector<double>& values = into[piece.slab->name];
    std::vector<int>& count = writes[piece.slab->name];
    values.resize(std::size_t(shape.numel()));
    count.resize(std::size_t(shape.numel()));
    for (std::int64_t r = 0; r < piece.where.rows; ++r)
      for (std::int64_t c = 0; c < piece.where.cols; ++c) {
        std::int64_t at = (piece.where.row + r) * cols + piece.where.col + c;
        values[std::size_t(at)] = number(flat, begin + piece.offset + r * piece.where.cols + c);
        ++count[std::size_t(at)];
      }
  }
};

// A component that is the same in every token's embedding, and routers that give it to experts 0 and 1.
void skew(const Context& context, ParameterSet& set) {
  for (Parameter& p : set.parameters()) {
    if (p.name == "embed_tokens") fill(context, p.value.slice_cols(0, 1), 2);
    if (p.name.find("router") == std::string::npos) continue;
    for (std::int64_t e = 0; e < 2; ++e) fill(context, p.value.slice_rows(e, e + 1).slice_cols(0, 1), e == 0 ? 1 : 0.8);
  }
}

void run_rank(const Case& c, const Comm& world, const std::vector<std::int64_t>& order, int threads, const Mutant& mutant, Collector& out) {
  ModelConfig config = model_of(c);
  Device device{Device::Type::cpu, threads};
  ParallelModel model(config, device, c.dtype, c.layout, world);
  initialize(model.context(), model.parameters(), 3, config.initializer_range);
  if (c.skewed) skew(model.context(), model.parameters());
  model.optimizer().reset_master(model.context());
  if (mutant.model) mutant.model(world.rank(), model);
  RecomputeSettings recompute = recompute_of(c);
  BalanceSettings balance = balance_of(c);
  std::int64_t micro_batches = std::int64_t(order.size()) / c.micro_batch_size;
  model.begin_stage(config.rope, kSequence, c.micro_batch_size, micro_batches, {recompute, balance});
  GlobalBatch batch(device, kSequence, c.micro_batch_size, micro_batches, model.mesh().shape.cp, model.mesh().position.cp);
  ParameterSet& set = model.parameters();
  for (int step = 0; step < c.steps; ++step) {
    batch.assign(sequences_of(c, order, step, config.vocab_size));
    if (mutant.batch) mutant.batch(world.rank(), batch);
    StepLoss loss = model.forward_backward(batch, {recompute, balance});
    StepRecord record;
    record.loss = loss.lm_loss;
    for (const RouterStatistics& layer : model.router_statistics()) {
      record.counts.push_back(layer.counts);
      record.dropped += layer.dropped;
      record.in_rounds += layer.in_rounds;
      if (!layer.counts.empty()) record.balance_loss += (layer.balance_loss_sum + layer.z_loss_sum) / layer.micro_batches;
    }
    model.end_router_step();
    if (step == 0) {
      std::lock_guard lock(out.mutex);
      for (const StatePiece& p : pieces_of(set, Held::counted))
        out.take(set.gradients(), p, set.buckets()[std::size_t(p.bucket)].share_begin(), out.record.gradients, out.gradient_writes);
    }
    OptimizerSettings settings;
    settings.clip_grad = 1;
    record.grad_norm = model.update(settings, 1e-2).grad_norm;
    if (world.rank() == 0) out.record.steps.push_back(record);
  }
  model.gatherer().finish();
  std::lock_guard lock(out.mutex);
  out.record.routed_peak = std::max(out.record.routed_peak, model.routed_peak());
  for (const StatePiece& p : pieces_of(set, Held::counted))
    out.take(model.optimizer().state(OptimizerState::master, p.bucket), p, 0, out.record.parameters, out.parameter_writes);
}

RunRecord finished(Collector& out) {
  for (auto* writes : {&out.gradient_writes, &out.parameter_writes})
    for (auto& [name, counts] : *writes) out.record.written.insert(out.record.written.end(), counts.begin(), counts.end());
  return std::move(out.record);
}

double norm(const std::vector<double>& v) {
  double squares = 0;
  for (double x : v) squares += x * x;
  return std::sqrt(squares);
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) squares += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(squares);
}

double total_norm(const std::map<std::string, std::vector<double>>& tensors) {
  double squares = 0;
  for (const auto& [name, v] : tensors) squares += norm(v) * norm(v);
  return std::sqrt(squares);
}

}  // namespace

RunRecord run_case(const Case& c, const Mutant& mutant, int threads) {
  Collector out;
  int ranks = c.layout.mesh.world();
  auto rank = [&](const Comm& world) {
    int dp = position_of(c.layout.mesh, world.rank()).dp;
    run_rank(c, world, order_of(c.layout.mesh.dp, dp), threads, mutant, out);
  };
  if (ranks == 1) {
    rank(Comm());
  } else {
    ThreadOptions options;
    options.fault = mutant.fault;
    options.comm.timeout_seconds = 60;
    run_ranks(ranks, options, rank);
  }
  return finished(out);
}

RunRecord run_reference(const Case& as, const Mutant& mutant) {
  Case c = as;
  c.layout = ParallelLayout{};
  std::vector<std::int64_t> order;  // micro-batch by micro-batch, of all data-parallel ranks
  std::vector<std::vector<std::int64_t>> of;
  for (int r = 0; r < as.layout.mesh.dp; ++r) of.push_back(order_of(as.layout.mesh.dp, r));
  for (std::size_t i = 0; i < of[0].size(); i += std::size_t(as.micro_batch_size))
    for (const auto& own : of) order.insert(order.end(), own.begin() + std::int64_t(i), own.begin() + std::int64_t(i) + as.micro_batch_size);
  Collector out;
  run_rank(c, Comm(), order, 1, mutant, out);
  return finished(out);
}

std::string difference(const Case& c, const RunRecord& reference, const RunRecord& run, Worst* worst, const RunRecord* exact) {
  bool doubles = c.dtype == DType::f64, half = c.dtype == DType::bf16;
  double loss_bound = doubles ? 1e-8 : half ? 2e-2 : 1e-5, norm_bound = doubles ? 1e-8 : half ? 5e-2 : 1e-4;
  double gradient_bound = doubles ? 1e-10 : half ? 3 : 1e-5, floor = doubles ? 1e-12 : half ? 1e-2 : 1e-7;  // half: times one rank's error
  std::string found;
  auto report = [&](const std::string& text) {
    if (found.size() < 600) found += (found.empty() ? "" : "; ") + text;
  };
  for (int n : run.written)
    if (n != 1) {
      report(fmt::format("an element is held by {} ranks", n));
      break;
    }
  if (run.routed_peak > 1) report(fmt::format("the routed pool took {:.2f} of its limit", run.routed_peak));
  bool forced = c.skewed && c.capacity == 0 && (c.memory_factor < 1 || (c.memory_factor == 1 && c.layout.mesh.ep > 1));
  if (forced && !(run.steps[0].in_rounds > 0)) report("no expert worked in rounds");
  if (run.gradients.size() != reference.gradients.size()) report(fmt::format("{} tensors, not {}", run.gradients.size(), reference.gradients.size()));
  if (run.steps.size() != reference.steps.size()) return "steps are missing";
  auto relative = [](double a, double b) { return std::abs(a - b) / std::max(std::abs(b), 1e-30); };
  auto not_within = [](double value, double bound) { return !(value <= bound); };  // NaN is not
  for (std::size_t i = 0; i < run.steps.size(); ++i) {
    const StepRecord &a = run.steps[i], &b = reference.steps[i];
    double loss = relative(a.loss, b.loss), grad_norm = relative(a.grad_norm, b.grad_norm);
    worst->loss = std::max(worst->loss, loss);
    worst->grad_norm = std::max(worst->grad_norm, grad_norm);
    if (not_within(loss, loss_bound)) report(fmt::format("step {}: loss {:.12f}, not {:.12f}", i + 1, a.loss, b.loss));
    if (not_within(grad_norm, norm_bound) && (i == 0 || !half)) report(fmt::format("step {}: gradient norm {:.12f}, not {:.12f}", i + 1, a.grad_norm, b.grad_norm));
    if (b.balance_loss != 0 && not_within(relative(a.balance_loss, b.balance_loss), loss_bound))
      report(fmt::format("step {}: balance and z loss {:.12f}, not {:.12f}", i + 1, a.balance_loss, b.balance_loss));
    if (a.dropped != b.dropped && !half) report(fmt::format("step {}: {} choices dropped, not {}", i + 1, a.dropped, b.dropped));
    if (c.capacity > 0 && c.capacity <= 1 && !(a.dropped > 0)) report(fmt::format("step {}: nothing was dropped", i + 1));
    if (a.counts != b.counts && !half) report(fmt::format("step {}: tokens went to other experts", i + 1));
  }
  double all = total_norm(reference.gradients);
  for (const auto& [name, g] : reference.gradients) {
    auto other = run.gradients.find(name);
    if (other == run.gradients.end()) {
      report(name + " is missing");
      continue;
    }
    double d = distance(other->second, exact ? exact->gradients.at(name) : g), scale = exact ? distance(g, exact->gradients.at(name)) : norm(g);
    if (double r = d / (scale + floor / gradient_bound * all); r > worst->gradient) worst->gradient = r, worst->at = name;
    if (not_within(d, gradient_bound * scale + floor * all)) report(fmt::format("gradient of {}: |difference| {:.3e} of {:.3e}", name, d, scale));
  }
  for (const auto& [name, p] : reference.parameters) {
    auto other = run.parameters.find(name);
    if (other != run.parameters.end()) worst->parameter = std::max(worst->parameter, distance(other->second, p) / norm(p));
  }
  if (doubles && not_within(worst->parameter, 1e-8)) report(fmt::format("a parameter differs by {:.3e} after {} steps", worst->parameter, c.steps));
  return found;
}

std::string compare(const Case& c, const Mutant& mutant, Worst* worst) {
  RunRecord reference = run_reference(c), run = run_case(c, mutant);
  if (c.dtype != DType::bf16) return difference(c, reference, run, worst);
  Case in_doubles = c;
  in_doubles.dtype = DType::f64;
  RunRecord exact = run_reference(in_doubles);
  return difference(c, reference, run, worst, &exact);
}

}  // namespace af::test
