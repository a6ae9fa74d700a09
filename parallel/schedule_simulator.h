// Plays a schedule without ranks: proves that it ends, and tells its bubble and its memory.
// The model is the executor's (pipeline_executor.h): a rank does its steps in order; a step starts when the one before has ended and its
// message is there; a message leaves at the end of a step and travels once its receive is posted; the sender does not wait for it.
#pragma once
#include <string>
#include <vector>

#include "parallel/pipeline_layout.h"
#include "parallel/schedule.h"

namespace af {

using Orders = std::vector<std::vector<Action>>;  // of each rank
Orders make_orders(const ScheduleShape& shape);

// One virtual stage and one micro-batch. Seconds, bytes.
struct StageCosts {
  double forward = 1;
  double backward_input = 1;   // with what is computed again
  double backward_weight = 1;  // a whole backward takes the sum of both
  double saved = 1;            // bytes kept from the start of the forward to the end of the (input gradient's) backward
  double weight_saved = 0;     // of these, what stays until the weight gradient
  double weight_new = 0;       // what the input gradient's backward adds until the weight gradient: gradients of outputs, and under
                               // recomputation the activations computed again
  StageCosts& operator+=(const StageCosts& other);
};
// Of each virtual stage, from those of each layer (which include nothing else), of the embedding, and of the head with the loss.
std::vector<StageCosts> stage_costs(const PipelineLayout& layout, const std::vector<StageCosts>& layers, const StageCosts& embedding,
                                    const StageCosts& head);

struct TimedAction {
  Action action;
  double begin = 0, end = 0;
};

struct Simulation {
  std::string problem;                             // why the schedule is none or never ends; empty: it ends, and the rest holds
  std::vector<std::vector<TimedAction>> timeline;  // of each rank
  double makespan = 0;
  std::vector<double> bubble;        // of each rank: seconds idle
  std::vector<double> bubble_share;  // of each rank: idle / makespan
  std::vector<int> peak_saved;       // of each rank: the most (micro-batch, chunk)s with anything saved
  std::vector<double> peak_bytes;    // of each rank: the most bytes saved
  std::vector<int> peak_sends;       // of each rank: the most messages that it has begun to compute and that have not arrived
};

// costs: of each virtual stage; p2p: seconds from send to arrival.
Simulation simulate(const ScheduleShape& shape, const Orders& orders, const std::vector<StageCosts>& costs, double p2p = 0);
Simulation simulate(const ScheduleShape& shape, const std::vector<StageCosts>& costs, double p2p = 0);

// What a schedule of its own accord cannot be: an action lost, twice, or before what it needs on the same rank. Empty: nothing.
std::string problem_of(const ScheduleShape& shape, const Orders& orders);

}  // namespace af
