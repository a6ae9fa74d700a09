#include "parallel/pipeline_executor.h"

#include <chrono>
#include <utility>

#include "core/error.h"

namespace af {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

// On an exception, messages under way are given up at once: the other ranks will not come. Otherwise there are none left.
struct PipelineExecutor::EndMessages {
  std::vector<Pending>& messages;
  ~EndMessages() {
    for (Pending& message : messages) Pending ended = std::move(message);
  }
};

PipelineExecutor::PipelineExecutor(const ScheduleShape& shape, const Comm& pp, const Device& device, const Shape& activations, DType dtype)
    : shape_(shape),
      pp_(pp),
      device_(device),
      activations_(activations),
      dtype_(dtype),
      slot_bytes_(std::size_t(activations.numel()) * size_of(dtype)) {
  AF_CHECK(pp.size() == shape.pipeline_size, "a schedule for {} ranks on a pipeline of {}", shape.pipeline_size, pp.size());
  plan_ = make_plan(shape, pp.rank());
  const std::size_t passes = std::size_t(shape.virtual_size) * shape.micro_batches;
  arriving_.assign(2 * passes, -1);
  inputs_.assign(passes, -1);
  timeline_.reserve(plan_.steps.size());
}

int& PipelineExecutor::place(std::vector<int>& table, const Action& action, int chunk) {
  const int pass = &table == &arriving_ && action.kind != Action::forward ? 1 : 0;
  return table[(std::size_t(pass) * shape_.virtual_size + chunk) * shape_.micro_batches + action.micro_batch];
}

// A slot that nobody uses; a new one where all are in use.
int PipelineExecutor::take() {
  if (free_.empty()) finish_sends(false);
  if (free_.empty()) {
    Slot& slot = slots_.emplace_back();
    slot.memory = Buffer(device_, slot_bytes_);
    slot.tensor = Tensor(slot.memory.data(), dtype_, activations_);
    messages_.emplace_back();
    free_.reserve(slots_.size());
    sending_.reserve(slots_.size());
    return int(slots_.size()) - 1;
  }
  const int slot = free_.back();
  free_.pop_back();
  return slot;
}

void PipelineExecutor::finish_sends(bool all) {
  std::erase_if(sending_, [&](int slot) {
    if (!all && !messages_[slot].done()) return false;
    messages_[slot].wait();
    give(slot);
    return true;
  });
}

// The slot goes to the next rank, or to this rank's own next chunk.
void PipelineExecutor::deliver(const Step& step, int slot) {
  if (step.to.rank == pp_.rank()) {
    place(arriving_, step.action, step.to.chunk) = slot;
  } else {
    messages_[slot] = pp_.send(slots_[slot].tensor, step.to.rank);
    sending_.push_back(slot);
  }
}

void PipelineExecutor::do_step(const Step& step, int in, PipelineStage& stage) {
  const auto& [kind, m, chunk] = step.action;
  int out = in;
  if (kind == Action::forward) {
    out = step.to.none() ? -1 : take();
  } else if (kind != Action::backward_weight && in < 0) {
    out = take();
  }
  const Tensor none, &source = in < 0 ? none : slots_[in].tensor, &target = out < 0 ? none : slots_[out].tensor;
  TimedAction timed = {step.action, now(), 0};
  switch (kind) {
    case Action::forward:
      stage.forward(m, chunk, source, target);
      break;
    case Action::backward:
      stage.backward(m, chunk, target);
      break;
    case Action::backward_input:
      stage.backward_input(m, chunk, target);
      break;
    case Action::backward_weight:
      stage.backward_weight(m, chunk);
      break;
  }
  timed.end = now();
  timeline_.push_back(timed);

  int& held = place(inputs_, step.action, chunk);
  if (kind == Action::forward) {
    held = in;
  } else if (kind != Action::backward_input && held >= 0) {
    give(std::exchange(held, -1));
  }
  if (!step.to.none()) {
    deliver(step, out);
  } else if (kind != Action::forward && out >= 0) {
    give(out);
  }
}

void PipelineExecutor::run(PipelineStage& stage) {
  const EndMessages end{messages_};
  const double start = now();
  timeline_.clear();
  std::size_t posted = 0;
  for (const Step& step : plan_.steps) {
    for (; int(posted) < step.posted; ++posted) {
      const PlannedReceive& receive = plan_.receives[posted];
      const Action& taker = plan_.steps[receive.step].action;
      const int slot = take();
      messages_[slot] = pp_.receive(slots_[slot].tensor, receive.from);
      place(arriving_, taker, taker.chunk) = slot;
    }
    int in = -1;
    if (!step.from.none()) {
      in = std::exchange(place(arriving_, step.action, step.action.chunk), -1);
      AF_CHECK(in >= 0, "{}: no message for it", str(step.action));
      messages_[in].wait();
    }
    do_step(step, in, stage);
  }
  finish_sends(true);
  seconds_ = now() - start;
  idle_seconds_ = seconds_;
  for (TimedAction& timed : timeline_) {
    idle_seconds_ -= timed.end - timed.begin;
    timed.begin -= start, timed.end -= start;
  }
}

}  // namespace af
