#include "launch/parallel_model.h"

#include <algorithm>

#include "core/ops/elementwise.h"
#include "parallel/placement.h"

namespace af {
namespace {

ParameterSet& laid_out(ParameterSet& set, const Mesh& mesh, std::int64_t bucket_numel, Optimizer::Memory memory) {
  Sharding sharding = sharding_of(mesh);
  sharding.bucket_numel = bucket_numel;
  if (memory == Optimizer::Memory::now) set.allocate(sharding);
  else set.allocate_values(sharding);
  return set;
}

}  // namespace

PipelineLayout pipeline_layout_of(const ModelConfig& config, const ParallelLayout& layout) {
  return layout.pipeline_layout.empty() ? even_layout(config.num_hidden_layers, layout.mesh.pp, layout.virtual_size)
                                        : parse_layout(layout.pipeline_layout, config.num_hidden_layers, layout.mesh.pp, layout.virtual_size);
}

std::deque<ParallelModel::Chunk> ParallelModel::make_chunks(const ModelConfig& config, const Device& device, ParameterSet& set,
                                                            const ModelParallel& parallel, const ParallelLayout& layout) {
  PipelineLayout stages = pipeline_layout_of(config, layout);
  std::deque<Chunk> chunks;
  for (int c = 0; c < layout.virtual_size; ++c)
    chunks.emplace_back(Qwen3Model(config, device, set, parallel, stages[std::size_t(c * layout.mesh.pp + parallel.mesh.position.pp)]));
  return chunks;
}

ParallelModel::ParallelModel(const ModelConfig& config, const Device& device, DType dtype, const ParallelLayout& layout, const Comm& world)
    : ParallelModel(config, device, dtype, layout, world, Optimizer::Memory::now) {}

ParallelModel::ParallelModel(ParallelModel& from, const ParallelLayout& layout, const Comm& world)
    : ParallelModel(from.config_, from.device_, from.parameters_.dtype(), layout, world, Optimizer::Memory::later) {
  from.gatherer_.finish();
  for (Chunk& chunk : from.chunks_) chunk.free.clear(), chunk.slots.clear();  // room for the move
  from.scratch_ = Arena(device_, scratch_.name());
  from.executor_.reset();
  redistribute(context_, from.parameters_, from.optimizer_, mesh_, parameters_, optimizer_);
  for (std::size_t i = 0; i < router_.size(); ++i) set_previous_counts(i, from.router_[i].previous_counts);
}

ParallelModel::ParallelModel(const ModelConfig& config, const Device& device, DType dtype, const ParallelLayout& layout, const Comm& world,
                             Optimizer::Memory memory)
    : config_(config),
      device_(device),
      layout_(layout),
      mesh_(layout.mesh, world),
      parallel_(mesh_, config),
      scratch_(device, "scratch"),
      context_{device, scratch_},
      parameters_(device, dtype),
      chunks_(make_chunks(config, device, parameters_, parallel_, layout)),
      optimizer_(device, laid_out(parameters_, mesh_, layout.bucket_numel, memory), world, memory),
      gatherer_(mesh_, parameters_, layout.overlap_param_gather) {
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) router_.emplace_back(config.is_moe_layer(i) ? config.num_experts : 0);
}

ParallelModel::Chunk& ParallelModel::chunk_of(std::size_t layer) {
  auto holds = [&](const Chunk& c) { return std::int64_t(layer) >= c.model.stage().begin && std::int64_t(layer) < c.model.stage().end; };
  auto found = std::find_if(chunks_.begin(), chunks_.end(), holds);
  return found == chunks_.end() ? chunks_.front() : *found;  // front: of a layer of another stage it has empty statistics
}

void ParallelModel::begin_stage(const RopeSettings& rope, std::int64_t seq_length, std::int64_t micro_batch_size, std::int64_t micro_batches,
                                const StepSettings& settings) {
  scratch_ = Arena(device_, scratch_.name());  // what the stage before held: its sizes were others
  std::int64_t tokens = seq_length * micro_batch_size / mesh_.shape.cp, local = parallel_.tensor.local_tokens(tokens);
  for (Chunk& chunk : chunks_) {
    chunk.model.set_rope(context_, rope, seq_length);
    chunk.slots.clear();
    chunk.free.clear();
    chunk.of.assign(std::size_t(micro_batches), nullptr);
  }
  config_ = chunks_.front().model.config();
  for (Chunk& chunk : chunks_) chunk.routed_limit = chunk.model.routed_bytes(local, settings.recompute, settings.balance);
  losses_.assign(std::size_t(micro_batches), 0);
  reducer_.emplace(mesh_, parameters_, layout_.overlap_grad_reduce);
  executor_.emplace(ScheduleShape{layout_.schedule, mesh_.shape.pp, layout_.virtual_size, int(micro_batches), layout_.virtual_group}, mesh_.pp, device_,
                    Shape{local, config_.hidden_size}, parameters_.dtype());
}

class ParallelModel::Step : public PipelineStage {
 public:
  Step(ParallelModel& owner, const GlobalBatch& batch, const StepSettings& settings, double scale, std::int64_t micro_batches_of_all)
      : owner_(owner), batch_(batch), settings_(settings), scale_(scale), all_(micro_batches_of_all), last_(int(batch.micro_batches()) - 1) {}

  void forward(int m, int c, const Tensor& input, const Tensor& output) override {
    Chunk& chunk = owner_.chunks_[std::size_t(c)];
    if (chunk.free.empty()) {
      Qwen3Model::Saved& slot = chunk.slots.emplace_back(owner_.device_, chunk.model.stage().layers());
      slot.routed = Arena(owner_.device_, "routed activations", chunk.routed_limit);
      chunk.free.push_back(&slot);
    }
    Qwen3Model::Saved& saved = *(chunk.of[std::size_t(m)] = chunk.free.back());
    chunk.free.pop_back();
    chunk.model.forward(pass(m, saved), scale_, saved, input, output);
    if (chunk.model.stage().head) owner_.losses_[std::size_t(m)] = sum(owner_.context_, saved.token_loss);
  }
  void backward(int m, int c, const Tensor& d) override {
    Chunk& chunk = owner_.chunks_[std::size_t(c)];
    Qwen3Model::Saved& saved = *chunk.of[std::size_t(m)];
    chunk.model.backward(pass(m, saved), saved, d);
    give_back(chunk, m);
  }
  void backward_input(int m, int c, const Tensor& d) override {
    Chunk& chunk = owner_.chunks_[std::size_t(c)];
    Qwen3Model::Saved& saved = *chunk.of[std::size_t(m)];
    Pass p = pass(m, saved);
    p.delayed = &saved.delayed;
    chunk.model.backward(p, saved, d);
  }
  void backward_weight(int m, int c) override {
    Chunk& chunk = owner_.chunks_[std::size_t(c)];
    Qwen3Model::Saved& saved = *chunk.of[std::size_t(m)];
    chunk.model.backward_weight(pass(m, saved), saved);
    give_back(chunk, m);
  }

 private:
  Pass pass(int m, Qwen3Model::Saved& saved) {
    Pass p{owner_.context_, batch_[m], saved.keep, saved.routed, Mode::train, settings_.recompute, settings_.balance, all_};
    p.gatherer = &owner_.gatherer_;
    p.reducer = m == last_ ? &*owner_.reducer_ : nullptr;
    return p;
  }
  void give_back(Chunk& chunk, int m) {
    Qwen3Model::Saved*& saved = chunk.of[std::size_t(m)];
    saved->reset();
    chunk.free.push_back(saved);
    saved = nullptr;
  }

  ParallelModel& owner_;
  const GlobalBatch& batch_;
  StepSettings settings_;
  double scale_;
  std::int64_t all_;
  int last_;
};

StepLoss ParallelModel::forward_backward(const GlobalBatch& batch, const StepSettings& settings) {
  // Known before the first forward, so that every gradient is that of the step's true loss.
  double totals[3] = {double(batch.counted_targets()), batch.sum_squared_lengths(), double(batch.micro_batches())};
  mesh_.dp.all_reduce(Tensor(totals, DType::f64, {3})).wait();
  double scale = 1 / std::max(totals[0], 1.0);
  Step step(*this, batch, settings, scale, std::int64_t(totals[2]));
  executor_->run(step);
  reducer_->finish();

  double loss = 0;  // of the last stage; the ranks of tp hold the same tokens without sequence parallelism, and one speaks
  bool speaks = has_head() && (parallel_.tensor.sequence_parallel() || mesh_.position.tp == 0);
  if (speaks)
    for (double l : losses_) loss += l;
  mesh_.world.all_reduce(Tensor(&loss, DType::f64, {1})).wait();
  gather_router();
  loss_ = loss * scale;
  return {loss_, std::int64_t(totals[0]), totals[1]};
}

// Every rank learns what the routers of all layers did with the global batch.
void ParallelModel::gather_router() {
  if (config_.num_experts == 0) return;
  for (std::size_t i = 0; i < router_.size(); ++i) {
    RouterStatistics& own = chunk_of(i).model.router_statistics()[i];
    if (own.counts.empty() && !router_[i].counts.empty()) router_[i] = RouterStatistics(config_.num_experts);
    else router_[i] = own;
  }
  reduce_over(mesh_.world, router_);
  for (std::size_t i = 0; i < router_.size(); ++i) {
    RouterStatistics& own = chunk_of(i).model.router_statistics()[i];
    if (!own.counts.empty()) {
      std::vector<std::int64_t> previous = own.previous_counts;
      own = router_[i];
      own.previous_counts = previous;
    }
  }
}

double ParallelModel::routed_peak() const {
  double most = 0;
  for (const Chunk& chunk : chunks_)
    for (const Qwen3Model::Saved& slot : chunk.slots)
      if (chunk.routed_limit > 0) most = std::max(most, double(slot.routed.peak()) / double(chunk.routed_limit));
  return most;
}

void ParallelModel::end_router_step() {
  for (RouterStatistics& layer : router_) layer.end_step();
  for (Chunk& chunk : chunks_)
    for (RouterStatistics& layer : chunk.model.router_statistics()) layer.end_step();
}

void ParallelModel::set_previous_counts(std::size_t layer, const std::vector<std::int64_t>& counts) {
  router_[layer].previous_counts = counts;
  RouterStatistics& own = chunk_of(layer).model.router_statistics()[layer];
  if (!own.counts.empty()) own.previous_counts = counts;
}

OptimizerResult ParallelModel::update(const OptimizerSettings& settings, double lr) {
  gatherer_.finish();  // of the step before: a stage that uses not all of its parameters may have some under way
  OptimizerResult result = optimizer_.step(context_, settings, lr, loss_);
  if (!result.skipped) gatherer_.start();
  return result;
}

ActivationMemory ParallelModel::activations() const {
  ActivationMemory most;
  most.scratch = std::int64_t(scratch_.peak());
  for (const Chunk& chunk : chunks_) {
    most.transient += std::int64_t(chunk.model.transient().peak());
    for (const Qwen3Model::Saved& saved : chunk.slots) {
      most.kept += std::int64_t(saved.keep.peak());
      most.routed += std::int64_t(saved.routed.peak());
    }
  }
  return most;
}

void ParallelModel::evaluate(const MicroBatch& batch, const StepSettings& settings, const Tensor& token_loss) {
  gatherer_.finish();
  Arena::Scope scope(scratch_);
  Shape shape{local_tokens(batch), config_.hidden_size};
  Tensor x = scratch_.tensor(shape, parameters_.dtype()), y = scratch_.tensor(shape, parameters_.dtype());
  Pass pass{context_, batch, scratch_, scratch_, Mode::evaluate, settings.recompute, settings.balance, 1};
  int pp = mesh_.shape.pp, rank = mesh_.position.pp;
  for (Chunk& chunk : chunks_) {
    const StageLayers& stage = chunk.model.stage();
    if (pp > 1 && !stage.embedding) mesh_.pp.receive(x, (rank + pp - 1) % pp).wait();
    chunk.model.evaluate(pass, token_loss, {}, x, y);
    if (stage.head) continue;
    if (pp > 1) mesh_.pp.send(y, (rank + 1) % pp).wait();
    else std::swap(x, y);
  }
}

}  // namespace af
