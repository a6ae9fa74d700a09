// Runs one step of any schedule (parallel/schedule.h) on the ranks of a pipeline. Receives are posted a step ahead, so that a message
// travels while the rank computes; sends are asynchronous, and a step waits for nothing but its own input.
//
//   PipelineExecutor executor({ScheduleKind::one_f_one_b, pp.size(), 1, micro_batches}, pp, device, {T, H}, dtype);
//   executor.run(stage);   // stage: this rank's layers
#pragma once
#include <vector>

#include "core/memory.h"
#include "parallel/comm.h"
#include "parallel/schedule.h"
#include "parallel/schedule_simulator.h"

namespace af {

// A rank's part of the model. chunk: which of its virtual stages, 0 .. virtual_size - 1.
class PipelineStage {
 public:
  virtual ~PipelineStage() = default;
  // input and output [T, H]. The input is empty where the pipeline begins (chunk 0 of rank 0), the output where it ends (the last chunk
  // of the last rank, which computes the loss). The input stays as it is until the backward of this micro-batch and chunk, the weight
  // gradient included, has ended: it need not be copied.
  virtual void forward(int micro_batch, int chunk, const Tensor& input, const Tensor& output) = 0;
  // d [T, H]: on entry the gradient of the output, on return that of the input, in the same memory. Where the pipeline ends it comes in
  // uninitialised, where it begins what is left in it does not matter. Adds the weight gradients.
  virtual void backward(int micro_batch, int chunk, const Tensor& d) = 0;
  // zero_bubble: the same in two calls. What backward_weight needs of d it must have kept.
  virtual void backward_input(int micro_batch, int chunk, const Tensor& d) = 0;
  virtual void backward_weight(int micro_batch, int chunk) = 0;
};

class PipelineExecutor {
 public:
  // activations: what passes between stages, [T, H] of this rank (T_local with sequence parallelism), the same for all micro-batches.
  PipelineExecutor(const ScheduleShape& shape, const Comm& pp, const Device& device, const Shape& activations, DType dtype);

  const ScheduleShape& shape() const { return shape_; }
  void run(PipelineStage& stage);  // all micro-batches, forward and backward; throws what the stage throws

  // Of the last run.
  const std::vector<TimedAction>& timeline() const { return timeline_; }  // seconds since its start; the order is that of execution
  double seconds() const { return seconds_; }
  double idle_share() const { return seconds_ > 0 ? idle_seconds_ / seconds_ : 0; }
  // Memory for messages and held inputs, [T, H] each. They are made when first needed; how many that are depends on how far ranks drift
  // apart, at most one per micro-batch and chunk in flight, and what is on the way.
  std::size_t buffers() const { return slots_.size(); }
  std::size_t bytes() const { return slots_.size() * slot_bytes_; }

 private:
  struct Slot {
    Buffer memory;
    Tensor tensor;
  };
  struct EndMessages;  // leaves no message behind, whatever happens
  int take();
  void give(int slot) { free_.push_back(slot); }
  void deliver(const Step& step, int slot);
  void finish_sends(bool all);
  int& place(std::vector<int>& table, const Action& action, int chunk);
  void do_step(const Step& step, int in, PipelineStage& stage);

  ScheduleShape shape_;
  Comm pp_;
  Device device_;
  Shape activations_;
  DType dtype_;
  std::size_t slot_bytes_ = 0;
  PipelinePlan plan_;
  std::vector<Slot> slots_;
  std::vector<Pending> messages_;  // of each slot; must end before slots_ do
  std::vector<int> free_, sending_;
  std::vector<int> arriving_;  // [forward or backward][chunk][micro-batch]: the slot of a step's input
  std::vector<int> inputs_;    // likewise [0][chunk][micro-batch]: inputs held for the backward
  std::vector<TimedAction> timeline_;
  double seconds_ = 0, idle_seconds_ = 0;
};

}  // namespace af
