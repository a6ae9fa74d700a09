#include "parallel/schedule.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/error.h"

namespace af {
namespace {

constexpr std::array<std::pair<ScheduleKind, const char*>, 4> kNames = {{{ScheduleKind::gpipe, "gpipe"},
                                                                         {ScheduleKind::one_f_one_b, "1f1b"},
                                                                         {ScheduleKind::interleaved, "interleaved"},
                                                                         {ScheduleKind::zero_bubble, "zero_bubble"}}};

int groups_of(const ScheduleShape& shape) { return std::max(1, shape.micro_batches / std::max(shape.group, shape.pipeline_size)); }
int largest_group(const ScheduleShape& shape) { return (shape.micro_batches + groups_of(shape) - 1) / groups_of(shape); }

// The forwards of a rank: a group of micro-batches through chunk 0, the same through chunk 1, ...; then the next group.
// The backwards are the same with the chunks from last to first.
std::vector<Action> passes(const ScheduleShape& shape, Action::Kind kind) {
  std::vector<Action> order;
  order.reserve(std::size_t(shape.micro_batches) * shape.virtual_size);
  const int groups = groups_of(shape), size = shape.micro_batches / groups, larger = shape.micro_batches % groups;
  for (int g = 0, begin = 0, end; g < groups; ++g, begin = end) {
    end = begin + size + (g >= groups - larger ? 1 : 0);
    for (int i = 0; i < shape.virtual_size; ++i) {
      const int chunk = kind == Action::forward ? i : shape.virtual_size - 1 - i;
      for (int m = begin; m < end; ++m) order.push_back({kind, m, chunk});
    }
  }
  return order;
}

// Forwards before the first backward, less the one of the first pair.
int warm_up(const ScheduleShape& shape, int rank) {
  const int behind = shape.pipeline_size - 1 - rank;
  if (shape.kind == ScheduleKind::gpipe) return shape.micro_batches;
  const bool one_chunk = shape.kind == ScheduleKind::one_f_one_b || (shape.kind == ScheduleKind::zero_bubble && shape.virtual_size == 1);
  // Interleaved: twice as far ahead, so that a message has a step's time to travel.
  return one_chunk ? behind : 2 * behind + (shape.virtual_size - 1) * std::max(largest_group(shape), shape.pipeline_size);
}

}  // namespace

const char* name_of(ScheduleKind kind) {
  for (const auto& [k, name] : kNames) {
    if (k == kind) return name;
  }
  AF_CHECK(false, "schedule kind {}", int(kind));
  return "";
}

std::vector<std::string> problems(const ScheduleShape& shape) {
  std::vector<std::string> found;
  if (shape.pipeline_size < 1) found.push_back(fmt::format("pipeline_model_parallel_size is {}; it is at least 1", shape.pipeline_size));
  if (shape.virtual_size < 1) found.push_back(fmt::format("virtual_pipeline_model_parallel_size is {}; it is at least 1", shape.virtual_size));
  if (shape.micro_batches < 1) found.push_back(fmt::format("{} micro-batches a step; a pipeline needs at least 1", shape.micro_batches));
  if (!found.empty()) return found;
  if (shape.virtual_size > 1 && (shape.kind == ScheduleKind::gpipe || shape.kind == ScheduleKind::one_f_one_b)) {
    found.push_back(
        fmt::format("virtual_pipeline_model_parallel_size {} with schedule {}: that has one chunk of layers a rank; schedule interleaved or "
                    "zero_bubble takes {}",
                    shape.virtual_size, name_of(shape.kind), shape.virtual_size));
  }
  if (shape.group != 0 && shape.group < shape.pipeline_size) {
    found.push_back(
        fmt::format("microbatch_group_size_per_vp_stage {} < pipeline_model_parallel_size {}: a chunk's first micro-batch would come back to rank 0 "
                    "after its group has ended; it is at least {}",
                    shape.group, shape.pipeline_size, shape.pipeline_size));
  }
  return found;
}

std::string str(const Action& action) {
  static constexpr const char* kLetters[] = {"F", "B", "I", "W"};
  return action.chunk == 0 ? fmt::format("{}{}", kLetters[action.kind], action.micro_batch)
                           : fmt::format("{}{}.{}", kLetters[action.kind], action.micro_batch, action.chunk);
}

std::vector<Action> make_schedule(const ScheduleShape& shape, int rank) {
  const std::vector<std::string> wrong = problems(shape);
  AF_CHECK(wrong.empty(), "schedule: {}", wrong.empty() ? "" : wrong.front());
  AF_CHECK(0 <= rank && rank < shape.pipeline_size, "schedule: rank {} of {}", rank, shape.pipeline_size);
  const bool split = shape.kind == ScheduleKind::zero_bubble;
  const std::vector<Action> forwards = passes(shape, Action::forward);
  const std::vector<Action> backwards = passes(shape, split ? Action::backward_input : Action::backward);
  const int total = int(forwards.size());
  const int ahead = std::min(warm_up(shape, rank), total);
  // ZB-H1: rank 0 has the most micro-batches in flight; a rank that has fewer may owe as many weight gradients.
  const int owed = split ? (shape.virtual_size == 1 ? rank : 2 * rank) : 0;

  std::vector<Action> order(forwards.begin(), forwards.begin() + ahead);
  order.reserve(std::size_t(total) * (split ? 3 : 2));
  const auto weight = [&](int i) { order.push_back({Action::backward_weight, backwards[i].micro_batch, backwards[i].chunk}); };
  for (int i = 0; i < total; ++i) {
    if (ahead + i < total) order.push_back(forwards[ahead + i]);
    order.push_back(backwards[i]);
    if (split && i >= owed) weight(i - owed);
  }
  if (split) {
    for (int i = std::max(0, total - owed); i < total; ++i) weight(i);
  }
  return order;
}

namespace {

Endpoint place_of(const ScheduleShape& shape, int stage) {
  if (stage < 0 || stage >= shape.virtual_stages()) return {};
  return {stage % shape.pipeline_size, stage / shape.pipeline_size};
}

// +1: the next virtual stage, -1: the one before.
Endpoint beside(const ScheduleShape& shape, int rank, const Action& action, int direction) {
  if (action.kind == Action::backward_weight) return {};
  return place_of(shape, action.chunk * shape.pipeline_size + rank + (action.kind == Action::forward ? direction : -direction));
}

}  // namespace

Endpoint source_of(const ScheduleShape& shape, int rank, const Action& action) { return beside(shape, rank, action, -1); }
Endpoint target_of(const ScheduleShape& shape, int rank, const Action& action) { return beside(shape, rank, action, +1); }

PipelinePlan make_plan(const ScheduleShape& shape, const std::vector<std::vector<Action>>& orders, int rank) {
  PipelinePlan plan;
  const std::vector<Action>& order = orders[rank];
  const int steps = int(order.size());
  for (const Action& action : order) plan.steps.push_back({action, source_of(shape, rank, action), target_of(shape, rank, action), 0});

  // The step that takes (forward or gradient, micro-batch, chunk).
  const auto key = [&](const Action& action) {
    return (std::size_t(action.kind == Action::forward ? 0 : 1) * shape.virtual_size + action.chunk) * shape.micro_batches + action.micro_batch;
  };
  std::vector<int> taker(std::size_t(2) * shape.virtual_size * shape.micro_batches, -1);
  for (int s = 0; s < steps; ++s) {
    if (!plan.steps[s].from.none()) taker[key(order[s])] = s;
  }

  // What each other rank sends to this one, in its order; a receive is posted one step before it is taken, or earlier where one that
  // its sender sends later must be.
  struct Posting {
    int before;
    PlannedReceive receive;
  };
  std::vector<Posting> postings;
  for (int sender = 0; sender < shape.pipeline_size; ++sender) {
    if (sender == rank) continue;
    const std::size_t first = postings.size();
    for (const Action& action : orders[sender]) {
      const Endpoint to = target_of(shape, sender, action);
      if (to.rank != rank) continue;
      const int step = taker[key({action.kind, action.micro_batch, to.chunk})];
      AF_CHECK(step >= 0, "rank {} sends {} to rank {}, which does not take it", sender, str(action), rank);
      postings.push_back({std::max(0, step - 1), {sender, step}});
    }
    for (std::size_t i = postings.size(); i-- > first + 1;) postings[i - 1].before = std::min(postings[i - 1].before, postings[i].before);
  }
  std::stable_sort(postings.begin(), postings.end(), [](const Posting& a, const Posting& b) { return a.before < b.before; });

  std::vector<int> taken(steps, 0);
  std::size_t next = 0;
  int held = 0;
  for (int s = 0; s < steps; ++s) {
    for (; next < postings.size() && postings[next].before <= s; ++next, ++held) {
      plan.receives.push_back(postings[next].receive);
      taken[postings[next].receive.step] += 1;
    }
    plan.steps[s].posted = int(next);
    plan.receive_buffers = std::max(plan.receive_buffers, held);
    held -= taken[s];
  }
  return plan;
}

PipelinePlan make_plan(const ScheduleShape& shape, int rank) {
  std::vector<std::vector<Action>> orders;
  for (int r = 0; r < shape.pipeline_size; ++r) orders.push_back(make_schedule(shape, r));
  return make_plan(shape, orders, rank);
}

}  // namespace af
