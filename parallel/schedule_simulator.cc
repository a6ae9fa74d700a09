#include "parallel/schedule_simulator.h"

#include <algorithm>

#include "core/error.h"

namespace af {
namespace {

// (pass, micro-batch, chunk) as an index; a whole backward is the input gradient's.
struct Keys {
  const ScheduleShape& shape;
  std::size_t size() const { return std::size_t(3) * shape.virtual_size * shape.micro_batches; }
  std::size_t operator()(const Action& action) const {
    const int pass = action.kind == Action::forward ? 0 : action.kind == Action::backward_weight ? 2 : 1;
    return (std::size_t(pass) * shape.virtual_size + action.chunk) * shape.micro_batches + action.micro_batch;
  }
};

std::string problem_of_rank(const ScheduleShape& shape, const std::vector<Action>& order, int rank) {
  const Keys key{shape};
  std::vector<int> at(key.size(), -1);
  for (int s = 0; s < int(order.size()); ++s) {
    const Action& a = order[s];
    if (a.micro_batch < 0 || a.micro_batch >= shape.micro_batches || a.chunk < 0 || a.chunk >= shape.virtual_size) {
      return fmt::format("rank {} step {}: {} is outside of {} micro-batches and {} chunks", rank, s, str(a), shape.micro_batches,
                         shape.virtual_size);
    }
    int& place = at[key(a)];
    if (place >= 0) return fmt::format("rank {} does {} twice, at steps {} and {}", rank, str(a), place, s);
    place = s;
    if (a.kind == Action::backward) at[key({Action::backward_weight, a.micro_batch, a.chunk})] = s;
    if (a.kind != Action::forward) {
      const Action need = {a.kind == Action::backward_weight ? Action::backward_input : Action::forward, a.micro_batch, a.chunk};
      if (at[key(need)] < 0) return fmt::format("rank {} step {}: {} stands before {}", rank, s, str(a), str(need));
    }
  }
  for (const Action::Kind kind : {Action::forward, Action::backward_input, Action::backward_weight}) {
    for (int c = 0; c < shape.virtual_size; ++c) {
      for (int m = 0; m < shape.micro_batches; ++m) {
        if (at[key({kind, m, c})] < 0) return fmt::format("rank {} never does {}", rank, str({kind, m, c}));
      }
    }
  }
  return "";
}

// A rank while it is played.
struct Player {
  PipelinePlan plan;
  std::vector<int> receive_of;    // step -> its index in plan.receives, -1
  std::vector<double> posted_at;  // receive -> time
  std::vector<double> end;        // step -> time; as many as are done
  int posted = 0;                 // receives posted so far
};

class Game {
 public:
  Game(const ScheduleShape& shape, const Orders& orders, const std::vector<StageCosts>& costs, double p2p)
      : shape_(shape), costs_(costs), p2p_(p2p), key_{shape}, players_(shape.pipeline_size), step_of_(shape.pipeline_size) {
    for (int r = 0; r < shape.pipeline_size; ++r) {
      Player& p = players_[r];
      p.plan = make_plan(shape, orders, r);
      const int steps = int(p.plan.steps.size());
      p.receive_of.assign(steps, -1);
      for (int i = 0; i < int(p.plan.receives.size()); ++i) p.receive_of[p.plan.receives[i].step] = i;
      step_of_[r].assign(key_.size(), -1);
      for (int s = 0; s < steps; ++s) step_of_[r][key_(p.plan.steps[s].action)] = s;
    }
  }

  Simulation play() {
    Simulation result;
    result.timeline.resize(shape_.pipeline_size);
    for (bool moved = true; moved;) {
      moved = false;
      for (int r = 0; r < shape_.pipeline_size; ++r) {
        while (step(r, result.timeline[r])) moved = true;
      }
    }
    for (int r = 0; r < shape_.pipeline_size; ++r) {
      if (players_[r].end.size() < players_[r].plan.steps.size()) result.problem += (result.problem.empty() ? "" : "; ") + why_stuck(r);
    }
    if (!result.problem.empty()) result.problem = "deadlock: " + result.problem;
    for (int r = 0; r < shape_.pipeline_size && result.problem.empty(); ++r) result.peak_sends.push_back(peak_sends(r, result.timeline[r]));
    return result;
  }

 private:
  // When the message of a rank's finished step has arrived, or -1 where that is not known yet.
  double arrival(int sender, int step) const {
    const Step& sent = players_[sender].plan.steps[step];
    const Player& receiver = players_[sent.to.rank];
    const int taker = step_of_[sent.to.rank][key_({sent.action.kind, sent.action.micro_batch, sent.to.chunk})];
    const int index = receiver.receive_of[taker];
    if (index >= receiver.posted || step >= int(players_[sender].end.size())) return -1;
    return std::max(players_[sender].end[step], receiver.posted_at[index]) + p2p_;
  }

  int sender_step(const Step& s) const { return step_of_[s.from.rank][key_({s.action.kind, s.action.micro_batch, s.from.chunk})]; }

  bool step(int rank, std::vector<TimedAction>& timeline) {
    Player& p = players_[rank];
    const int s = int(p.end.size());
    if (s == int(p.plan.steps.size())) return false;
    const Step& step = p.plan.steps[s];
    double begin = s ? p.end.back() : 0;
    for (; p.posted < step.posted; ++p.posted) p.posted_at.push_back(begin);
    if (!step.from.none()) {
      const int sent = sender_step(step);
      const double there = step.from.rank != rank ? arrival(step.from.rank, sent) : sent < s ? p.end[sent] : -1;
      if (there < 0) return false;
      begin = std::max(begin, there);
    }
    const StageCosts& cost = costs_[step.action.chunk * shape_.pipeline_size + rank];
    const double seconds = step.action.kind == Action::forward          ? cost.forward
                           : step.action.kind == Action::backward       ? cost.backward_input + cost.backward_weight
                           : step.action.kind == Action::backward_input ? cost.backward_input
                                                                        : cost.backward_weight;
    p.end.push_back(begin + seconds);
    timeline.push_back({step.action, begin, begin + seconds});
    return true;
  }

  int peak_sends(int rank, const std::vector<TimedAction>& timeline) const {
    std::vector<double> arrivals;  // of the messages under way
    std::size_t peak = 0;
    for (int s = 0; s < int(timeline.size()); ++s) {
      const Endpoint& to = players_[rank].plan.steps[s].to;
      if (to.none() || to.rank == rank) continue;
      std::erase_if(arrivals, [&](double t) { return t <= timeline[s].begin; });
      arrivals.push_back(arrival(rank, s));
      peak = std::max(peak, arrivals.size());
    }
    return int(peak);
  }

  std::string why_stuck(int rank) const {
    const Player& p = players_[rank];
    const int s = int(p.end.size());
    const Step& step = p.plan.steps[s];
    return fmt::format("rank {} waits before {} for {} of rank {}", rank, str(step.action),
                       str({step.action.kind, step.action.micro_batch, step.from.chunk}), step.from.rank);
  }

  const ScheduleShape& shape_;
  const std::vector<StageCosts>& costs_;
  const double p2p_;
  Keys key_;
  std::vector<Player> players_;
  std::vector<std::vector<int>> step_of_;  // [rank][key]
};

}  // namespace

std::string problem_of(const ScheduleShape& shape, const Orders& orders) {
  if (int(orders.size()) != shape.pipeline_size) return fmt::format("orders of {} ranks for a pipeline of {}", orders.size(), shape.pipeline_size);
  for (int r = 0; r < shape.pipeline_size; ++r) {
    if (const std::string found = problem_of_rank(shape, orders[r], r); !found.empty()) return found;
  }
  return "";
}

StageCosts& StageCosts::operator+=(const StageCosts& other) {
  forward += other.forward, backward_input += other.backward_input, backward_weight += other.backward_weight;
  saved += other.saved, weight_saved += other.weight_saved, weight_new += other.weight_new;
  return *this;
}

std::vector<StageCosts> stage_costs(const PipelineLayout& layout, const std::vector<StageCosts>& layers, const StageCosts& embedding,
                                    const StageCosts& head) {
  AF_CHECK(!layout.empty() && layout.back().end == std::int64_t(layers.size()), "costs of {} layers for a layout of {}", layers.size(),
           layout.empty() ? 0 : layout.back().end);
  std::vector<StageCosts> all;
  for (const StageLayers& stage : layout) {
    StageCosts sum = {0, 0, 0, 0, 0, 0};
    if (stage.embedding) sum += embedding;
    for (std::int64_t i = stage.begin; i < stage.end; ++i) sum += layers[i];
    if (stage.head) sum += head;
    all.push_back(sum);
  }
  return all;
}

Orders make_orders(const ScheduleShape& shape) {
  Orders orders;
  for (int r = 0; r < shape.pipeline_size; ++r) orders.push_back(make_schedule(shape, r));
  return orders;
}

Simulation simulate(const ScheduleShape& shape, const Orders& orders, const std::vector<StageCosts>& costs, double p2p) {
  AF_CHECK(int(costs.size()) == shape.virtual_stages(), "simulate: costs of {} stages for {}", costs.size(), shape.virtual_stages());
  Simulation result;
  if (result.problem = problem_of(shape, orders); !result.problem.empty()) return result;
  result = Game(shape, orders, costs, p2p).play();
  if (!result.problem.empty()) return result;

  for (const auto& line : result.timeline) result.makespan = std::max(result.makespan, line.empty() ? 0 : line.back().end);
  for (int r = 0; r < shape.pipeline_size; ++r) {
    double busy = 0, bytes = 0, peak_bytes = 0;
    int saved = 0, peak_saved = 0;
    for (const TimedAction& t : result.timeline[r]) {
      busy += t.end - t.begin;
      const StageCosts& cost = costs[t.action.chunk * shape.pipeline_size + r];
      const bool split = t.action.kind == Action::backward_input;
      if (t.action.kind == Action::forward) ++saved, bytes += cost.saved;
      if (split) bytes += cost.weight_new;
      peak_saved = std::max(peak_saved, saved);
      peak_bytes = std::max(peak_bytes, bytes);
      if (t.action.kind == Action::backward) --saved, bytes -= cost.saved;
      if (split) bytes -= cost.saved - cost.weight_saved;
      if (t.action.kind == Action::backward_weight) --saved, bytes -= cost.weight_saved + cost.weight_new;
    }
    result.bubble.push_back(result.makespan - busy);
    result.bubble_share.push_back(result.makespan > 0 ? (result.makespan - busy) / result.makespan : 0);
    result.peak_saved.push_back(peak_saved);
    result.peak_bytes.push_back(peak_bytes);
  }
  return result;
}

Simulation simulate(const ScheduleShape& shape, const std::vector<StageCosts>& costs, double p2p) {
  return simulate(shape, make_orders(shape), costs, p2p);
}

}  // namespace af
