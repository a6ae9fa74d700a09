// A rank's part of a model in a layout, with everything that a training step does to it: the virtual stages, their parameters and
// optimizer state, the schedule, and the reductions between ranks. One rank is a layout like any other.
#pragma once
#include <deque>
#include <vector>

#include "launch/global_batch.h"
#include "models/memory.h"
#include "models/qwen3.h"
#include "parallel/data_parallel.h"
#include "parallel/optimizer.h"
#include "parallel/pipeline_executor.h"

namespace af {

// How a model is cut and run.
struct ParallelLayout {
  MeshShape mesh;
  ScheduleKind schedule = ScheduleKind::one_f_one_b;
  int virtual_size = 1;         // chunks of layers per rank
  int virtual_group = 0;        // micro-batches that run through a chunk in a row; 0: the pipeline's size
  std::string pipeline_layout;  // empty: even (parallel/pipeline_layout.h)
  bool overlap_grad_reduce = true, overlap_param_gather = true;
  std::int64_t bucket_numel = Sharding{}.bucket_numel;
};

PipelineLayout pipeline_layout_of(const ModelConfig& config, const ParallelLayout& layout);

// What of a stage's settings a step needs.
struct StepSettings {
  const RecomputeSettings& recompute;
  const BalanceSettings& balance;
};

struct StepLoss {
  double lm_loss = 0;             // of the global batch
  std::int64_t counted_targets = 0;
  double sum_squared_lengths = 0;  // of the global batch's documents
};

class ParallelModel {
 public:
  // Collective over world. Parameters are allocated, values zero.
  ParallelModel(const ModelConfig& config, const Device& device, DType dtype, const ParallelLayout& layout, const Comm& world);
  // The training state of `from` in another layout of the same processes; what `from` had is void afterwards (parallel/placement.h
  // says what memory that takes at most). Collective over world.
  ParallelModel(ParallelModel& from, const ParallelLayout& layout, const Comm& world);

  const Mesh& mesh() const { return mesh_; }
  const ParallelLayout& layout() const { return layout_; }
  const ModelConfig& config() const { return config_; }
  ParameterSet& parameters() { return parameters_; }
  Optimizer& optimizer() { return optimizer_; }
  ParameterGatherer& gatherer() { return gatherer_; }
  Context& context() { return context_; }

  // RoPE and memory for micro-batches of the given size from now on, with the settings that all steps of the stage have.
  void begin_stage(const RopeSettings& rope, std::int64_t seq_length, std::int64_t micro_batch_size, std::int64_t micro_batches,
                   const StepSettings& settings);
  // Forward and backward of the global batch, of which `batch` is this rank's share: its gradients are complete on return. Collective.
  StepLoss forward_backward(const GlobalBatch& batch, const StepSettings& settings);
  // Ends the step that forward_backward() began: the optimizer, and new values on their way to all. Collective.
  OptimizerResult update(const OptimizerSettings& settings, double lr);
  // token_loss [T_local] of the micro-batch on the ranks of the last stage. Collective over a pipeline.
  void evaluate(const MicroBatch& batch, const StepSettings& settings, const Tensor& token_loss);
  // Sums of the losses of the step's micro-batches, on the ranks of the last stage; elsewhere 0.
  const std::vector<double>& micro_batch_losses() const { return losses_; }
  bool has_head() const { return mesh_.last_stage(); }
  std::int64_t local_tokens(const MicroBatch& batch) const { return chunks_.front().model.local_tokens(batch); }

  // Of every layer of the model, on every rank; with the counts of the whole global batch after forward_backward().
  const std::vector<RouterStatistics>& router_statistics() const { return router_; }
  void end_router_step();                                                     // counts become the previous ones
  void set_previous_counts(std::size_t layer, const std::vector<std::int64_t>& counts);  // from a checkpoint
  const PipelineExecutor& executor() const { return *executor_; }  // after begin_stage()
  // Of the routed pool (models/pass.h) that came nearest to its limit: the most bytes in use at once, as a share of the limit; 0: none.
  double routed_peak() const;
  // The most that this rank's passes have taken since begin_stage(), of all micro-batches in flight together (messages: executor()).
  // `kept` includes what is delayed.
  ActivationMemory activations() const;

 private:
  ParallelModel(const ModelConfig& config, const Device& device, DType dtype, const ParallelLayout& layout, const Comm& world, Optimizer::Memory memory);
  struct Chunk {
    Qwen3Model model;
    std::deque<Qwen3Model::Saved> slots;          // one per micro-batch in flight
    std::vector<Qwen3Model::Saved*> free, of;     // of: by micro-batch
    std::size_t routed_limit = 0;                 // of each slot's routed pool
  };
  class Step;  // one forward_backward() under way

  static std::deque<Chunk> make_chunks(const ModelConfig& config, const Device& device, ParameterSet& set, const ModelParallel& parallel,
                                       const ParallelLayout& layout);
  Chunk& chunk_of(std::size_t layer);
  void gather_router();

  ModelConfig config_;
  Device device_;
  ParallelLayout layout_;
  Mesh mesh_;
  ModelParallel parallel_;
  Arena scratch_;
  Context context_;
  ParameterSet parameters_;
  std::deque<Chunk> chunks_;
  Optimizer optimizer_;
  std::optional<GradientReducer> reducer_;  // once there are gradients
  ParameterGatherer gatherer_;
  std::optional<PipelineExecutor> executor_;
  std::vector<RouterStatistics> router_;
  std::vector<double> losses_;  // of each micro-batch
  double loss_ = 0;             // of the step under way
};

}  // namespace af
