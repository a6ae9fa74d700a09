// Pipeline schedules as data: the order of work of each rank, and the messages that follow from it. Pure functions, no ranks run.
// P pipeline_size, V virtual_size (chunks of layers per rank), M micro_batches. Chunk c of rank r is virtual stage c P + r of P V.
//   gpipe        all forwards, then all backwards. Idle time of each rank: (P-1)(F+B)
//   1f1b         P-r-1 forwards, then one forward one backward. Idle: (P-1)(F+B)
//   interleaved  the same over V chunks (arXiv 2104.04473). Idle: (P-1)(F+B), F and B those of one chunk
//   zero_bubble  1f1b whose backward is two, the weight gradient r micro-batches later (ZB-H1, arXiv 2401.10241).
//                Idle: (P-1) max(F+B_input-W, F, B_input). With V > 1 interleaved's order, the weight gradients later within its memory
// (uniform stages, M >= P, messages that take no time; tests/parallel/schedule_test.cc)
// In every order the backwards of a chunk, and its weight gradients, come in the order of the micro-batches: sums of gradients have
// the same bits under any schedule.
#pragma once
#include <string>
#include <vector>

namespace af {

enum class ScheduleKind { gpipe, one_f_one_b, interleaved, zero_bubble };
const char* name_of(ScheduleKind kind);  // the YAML's pipeline.schedule

struct ScheduleShape {
  ScheduleKind kind = ScheduleKind::one_f_one_b;
  int pipeline_size = 1;
  int virtual_size = 1;
  int micro_batches = 1;
  // interleaved, zero_bubble with V > 1: this many micro-batches run through a chunk before the next chunk's turn (Megatron's
  // microbatch_group_size_per_vp_stage), at least P; 0: P. Where M is not a multiple, the rest is spread over the groups: a last group
  // of fewer than P, which Megatron refuses, can deadlock. M < P: one group.
  int group = 0;
  int virtual_stages() const { return pipeline_size * virtual_size; }
  bool operator==(const ScheduleShape&) const = default;
};

// What is wrong with it, one message each with the arithmetic; empty: nothing.
std::vector<std::string> problems(const ScheduleShape& shape);

struct Action {
  enum Kind { forward, backward, backward_input, backward_weight };  // backward: both gradients at once
  Kind kind = forward;
  int micro_batch = 0;
  int chunk = 0;  // of this rank
  bool operator==(const Action&) const = default;
};
std::string str(const Action& action);  // "F3", "B3.1" (micro-batch 3 of chunk 1)

// The order of work of one rank: 2 M V actions, 3 M V under zero_bubble.
std::vector<Action> make_schedule(const ScheduleShape& shape, int rank);

// A place in the pipeline; rank -1: none. Where it is the rank itself (P = 1), the tensor is handed over, not sent.
struct Endpoint {
  int rank = -1, chunk = -1;
  bool none() const { return rank < 0; }
  bool operator==(const Endpoint&) const = default;
};
// Where the action's input comes from (forward: activations; backward: their gradient), and where its output goes.
Endpoint source_of(const ScheduleShape& shape, int rank, const Action& action);
Endpoint target_of(const ScheduleShape& shape, int rank, const Action& action);

struct Step {
  Action action;
  Endpoint from, to;
  int posted = 0;  // before this step starts, receives [0, posted) are posted
};
struct PlannedReceive {
  int from = 0;  // rank
  int step = 0;  // that takes it
};
// A rank's steps with their messages. Receives of one sender stand in the order in which it sends (messages are matched in order,
// and with P = 2 activations and gradients go between the same two ranks), each posted at least one step before it is taken.
struct PipelinePlan {
  std::vector<Step> steps;
  std::vector<PlannedReceive> receives;
  int receive_buffers = 0;  // the most messages that are posted and not yet taken by a finished step
};
PipelinePlan make_plan(const ScheduleShape& shape, int rank);
// The same from orders of all ranks, any orders: what the simulator and its mutants look at.
PipelinePlan make_plan(const ScheduleShape& shape, const std::vector<std::vector<Action>>& orders, int rank);

}  // namespace af
