// Schedules against what each promises: counts, order, the formulas of the bubble, memory, and mutants that must be caught.
#include "parallel/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <tuple>

#include "core/error.h"
#include "parallel/schedule_drawing.h"
#include "parallel/schedule_simulator.h"

namespace af {
namespace {

constexpr std::pair<int, int> kPipelineAndGroup[] = {{1, 1}, {2, 2}, {2, 4}, {4, 4}, {4, 5}, {8, 9}, {8, 11}, {3, 0}, {6, 0}};
constexpr ScheduleKind kKinds[] = {ScheduleKind::gpipe, ScheduleKind::one_f_one_b, ScheduleKind::interleaved, ScheduleKind::zero_bubble};

std::vector<ScheduleShape> shapes() {
  std::vector<ScheduleShape> all;
  for (const ScheduleKind kind : kKinds) {
    for (const auto& [p, group] : kPipelineAndGroup) {
      for (const int v : {1, 2, 3, 4, 8}) {
        for (const int m : {1, 2, 5, 8, 13, 32}) {
          const ScheduleShape shape = {kind, p, v, m, group};
          if (problems(shape).empty()) all.push_back(shape);
        }
      }
    }
  }
  return all;
}

std::string str(const ScheduleShape& s) {
  return fmt::format("{} P {} V {} M {} group {}", name_of(s.kind), s.pipeline_size, s.virtual_size, s.micro_batches, s.group);
}

std::vector<StageCosts> uniform(const ScheduleShape& shape, const StageCosts& costs = {}) {
  return std::vector<StageCosts>(shape.virtual_stages(), costs);
}

template <class T>
T most(const std::vector<T>& values) {
  return *std::max_element(values.begin(), values.end());
}

TEST(Schedule, WrongShapesAreNamed) {
  const auto first = [](const ScheduleShape& shape) { return problems(shape).empty() ? std::string() : problems(shape).front(); };
  EXPECT_NE(first({ScheduleKind::one_f_one_b, 4, 2, 8}).find("virtual_pipeline_model_parallel_size 2"), std::string::npos);
  EXPECT_NE(first({ScheduleKind::gpipe, 4, 2, 8}).find("schedule gpipe"), std::string::npos);
  EXPECT_NE(first({ScheduleKind::interleaved, 4, 2, 8, 3}).find("microbatch_group_size_per_vp_stage 3"), std::string::npos);
  EXPECT_NE(first({ScheduleKind::interleaved, 0, 2, 8}).find("pipeline_model_parallel_size is 0"), std::string::npos);
  EXPECT_NE(first({ScheduleKind::interleaved, 2, 0, 8}).find("virtual_pipeline_model_parallel_size is 0"), std::string::npos);
  EXPECT_NE(first({ScheduleKind::interleaved, 2, 1, 0}).find("0 micro-batches"), std::string::npos);
  EXPECT_EQ(first({ScheduleKind::zero_bubble, 4, 2, 9, 4}), "");
}

// Length, running sum, and that each action stands after what it needs: facts of any pipeline, counted here without the simulator.
TEST(Schedule, OrdersAreWhole) {
  for (const ScheduleShape& shape : shapes()) {
    const bool split = shape.kind == ScheduleKind::zero_bubble;
    for (int r = 0; r < shape.pipeline_size; ++r) {
      const std::vector<Action> order = make_schedule(shape, r);
      ASSERT_EQ(order.size(), std::size_t(split ? 3 : 2) * shape.micro_batches * shape.virtual_size) << str(shape);
      int in_flight = 0, owed = 0;
      std::set<std::tuple<int, int, int>> done;
      for (const Action& a : order) {
        const auto did = [&](Action::Kind kind) { return done.count({kind, a.micro_batch, a.chunk}) > 0; };
        ASSERT_TRUE(done.insert({a.kind, a.micro_batch, a.chunk}).second) << str(shape) << " " << str(a);
        ASSERT_EQ(a.kind == Action::backward, !split && a.kind != Action::forward);
        if (a.kind == Action::forward) ++in_flight;
        if (a.kind == Action::backward || a.kind == Action::backward_input) {
          --in_flight, ++owed;
          ASSERT_TRUE(did(Action::forward)) << str(shape) << " " << str(a);
        }
        if (a.kind == Action::backward_weight) {
          --owed;
          ASSERT_TRUE(did(Action::backward_input)) << str(shape) << " " << str(a);
        }
        ASSERT_GE(in_flight, 0);
        ASSERT_GE(owed, 0);
      }
      EXPECT_EQ(in_flight, 0);
      EXPECT_EQ(owed, split ? 0 : shape.micro_batches * shape.virtual_size);
      EXPECT_EQ(int(done.size()), int(order.size()));
    }
  }
}

// Sums of gradients have the same bits under any schedule: each chunk's are added in the order of the micro-batches.
TEST(Schedule, GradientsAreAddedInTheOrderOfMicroBatches) {
  for (const ScheduleShape& shape : shapes()) {
    for (int r = 0; r < shape.pipeline_size; ++r) {
      std::map<std::pair<int, int>, int> next;
      for (const Action& a : make_schedule(shape, r)) {
        int& expected = next[{a.kind, a.chunk}];
        ASSERT_EQ(a.micro_batch, expected++) << str(shape) << " rank " << r;
      }
    }
  }
}

TEST(Schedule, InterleavedIsMegatrons) {
  // P = 2, V = 2, M = 4, written down from the paper's figure 4 (bottom): rank 0 warms up 2 + 2 forwards, rank 1 2.
  const auto text = [](const ScheduleShape& shape, int rank) {
    std::string all;
    for (const Action& a : make_schedule(shape, rank)) all += (all.empty() ? "" : " ") + str(a);
    return all;
  };
  const ScheduleShape shape = {ScheduleKind::interleaved, 2, 2, 4};
  EXPECT_EQ(text(shape, 0), "F0 F1 F0.1 F1.1 F2 B0.1 F3 B1.1 F2.1 B0 F3.1 B1 B2.1 B3.1 B2 B3");
  EXPECT_EQ(text(shape, 1), "F0 F1 F0.1 B0.1 F1.1 B1.1 F2 B0 F3 B1 F2.1 B2.1 F3.1 B3.1 B2 B3");
  // Five micro-batches in groups of at least two: 2 + 3, the warm-up that of a group of three.
  EXPECT_EQ(text({ScheduleKind::interleaved, 2, 2, 5}, 1), "F0 F1 F0.1 F1.1 B0.1 F2 B1.1 F3 B0 F4 B1 F2.1 B2.1 F3.1 B3.1 F4.1 B4.1 B2 B3 B4");
}

// Megatron's interleaved order written another way: micro-batches in groups of exactly `group`, the last one smaller.
std::vector<Action> fixed_groups(int p, int v, int m, int group, int rank) {
  std::vector<Action> order;
  const auto pass = [&](int k, Action::Kind kind) {  // the kth of the V M passes
    const int begin = k / (group * v) * group, size = std::min(group, m - begin), rest = k - begin * v;
    return Action{kind, begin + rest % size, kind == Action::forward ? rest / size : v - 1 - rest / size};
  };
  const int ahead = std::min(2 * (p - rank - 1) + (v - 1) * group, m * v);
  for (int k = 0; k < m * v + ahead; ++k) {
    if (k < m * v) order.push_back(pass(k, Action::forward));
    if (k >= ahead) order.push_back(pass(k - ahead, Action::backward));
  }
  return order;
}

TEST(Schedule, InterleavedGroupsAreMegatronsWhereTheyDivideAndSafeWhereNot) {
  int deadlocks = 0;
  for (const int p : {2, 3, 4}) {
    for (const int v : {1, 2, 3}) {
      for (const int group : {p, p + 1}) {
        for (int m = group; m <= 4 * group; ++m) {
          const ScheduleShape shape = {ScheduleKind::interleaved, p, v, m, group};
          Orders orders;
          for (int r = 0; r < p; ++r) orders.push_back(fixed_groups(p, v, m, group, r));
          EXPECT_EQ(problem_of(shape, orders), "");
          if (m % group == 0) {
            EXPECT_EQ(orders, make_orders(shape)) << str(shape);
          } else if (m % group < p) {
            deadlocks += !simulate(shape, orders, uniform(shape)).problem.empty();
          }
          EXPECT_EQ(simulate(shape, uniform(shape)).problem, "") << str(shape);
        }
      }
    }
  }
  EXPECT_GT(deadlocks, 0) << "then there were no need to spread what is left over";
}

TEST(Schedule, ZeroBubbleIsTheFigureOfZbH1) {
  const auto rank = [](int r) {
    std::string all;
    for (const Action& a : make_schedule({ScheduleKind::zero_bubble, 4, 1, 6}, r)) all += (all.empty() ? "" : " ") + str(a);
    return all;
  };
  EXPECT_EQ(rank(0), "F0 F1 F2 F3 I0 W0 F4 I1 W1 F5 I2 W2 I3 W3 I4 W4 I5 W5");
  EXPECT_EQ(rank(3), "F0 I0 F1 I1 F2 I2 F3 I3 W0 F4 I4 W1 F5 I5 W2 W3 W4 W5");
}

// Every message has one sender and one taker, and each ordered pair of ranks agrees on the order: messages carry no names.
TEST(Schedule, MessagesOfEachPairAreMatchedInOrder) {
  for (const ScheduleShape& shape : shapes()) {
    std::map<std::pair<int, int>, std::vector<std::tuple<int, int, int>>> sent,
        received;  // (from, to) -> (forward?, micro-batch, stage that takes it)
    std::size_t local = 0;
    for (int r = 0; r < shape.pipeline_size; ++r) {
      const PipelinePlan plan = make_plan(shape, r);
      std::vector<int> taken(plan.steps.size(), -1);
      for (int i = 0; i < int(plan.receives.size()); ++i) {
        const PlannedReceive& receive = plan.receives[i];
        const Step& step = plan.steps[receive.step];
        ASSERT_EQ(step.from.rank, receive.from);
        ASSERT_EQ(taken[receive.step], -1);
        taken[receive.step] = i;
        received[{receive.from, r}].push_back({step.action.kind == Action::forward, step.action.micro_batch, step.action.chunk});
      }
      for (int s = 0; s < int(plan.steps.size()); ++s) {
        const Step& step = plan.steps[s];
        const int stage = step.action.chunk * shape.pipeline_size + r, last = shape.virtual_stages() - 1;
        const bool forward = step.action.kind == Action::forward, weight = step.action.kind == Action::backward_weight;
        ASSERT_EQ(step.from.none(), weight || stage == (forward ? 0 : last));
        ASSERT_EQ(step.to.none(), weight || stage == (forward ? last : 0));
        if (!step.from.none() && step.from.rank != r) {
          ASSERT_GE(taken[s], 0);
          ASSERT_LT(taken[s], plan.steps[std::max(0, s - 1)].posted) << "not posted a step ahead";
        }
        if (!step.to.none() && step.to.rank == r) ++local;
        if (!step.to.none() && step.to.rank != r) sent[{r, step.to.rank}].push_back({forward, step.action.micro_batch, step.to.chunk});
      }
    }
    EXPECT_EQ(sent, received) << str(shape);
    EXPECT_EQ(local, shape.pipeline_size == 1 ? std::size_t(2) * (shape.virtual_size - 1) * shape.micro_batches : 0u);
  }
}

// Where P = 2 the order in which messages are taken is not the order in which they are sent: posting receives in the order of one's
// own steps would give an activation for a gradient. This is why the plan has an order of its own.
TEST(Schedule, WithTwoRanksReceivesCannotFollowTheReceiversSteps) {
  int other_order = 0;
  for (const ScheduleShape& shape : shapes()) {
    if (shape.pipeline_size != 2) continue;
    for (int r = 0; r < 2; ++r) {
      const PipelinePlan plan = make_plan(shape, r);
      other_order += !std::is_sorted(plan.receives.begin(), plan.receives.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
    }
  }
  EXPECT_GT(other_order, 0);
}

TEST(ScheduleSimulator, NoScheduleDeadlocks) {
  for (const ScheduleShape& shape : shapes()) {
    for (const double p2p : {0.0, 0.25}) EXPECT_EQ(simulate(shape, uniform(shape), p2p).problem, "") << str(shape);
  }
  for (const ScheduleKind kind : {ScheduleKind::interleaved, ScheduleKind::zero_bubble}) {
    for (int p = 1; p <= 7; ++p) {
      for (int m = 1; m <= 24; ++m) {
        const ScheduleShape shape = {kind, p, 3, m};
        EXPECT_EQ(simulate(shape, uniform(shape)).problem, "") << str(shape);
      }
    }
  }
}

TEST(ScheduleSimulator, BubblesAreTheFormulas) {
  for (const auto& [f, b, w] : {std::tuple{1.0, 1.0, 1.0}, {1.0, 1.25, 0.75}, {2.0, 1.5, 1.0}, {0.5, 3.0, 2.0}, {1.0, 1.0, 1.5}}) {
    for (const int p : {1, 2, 3, 4, 8}) {
      for (const int m : {p, p + 1, 2 * p, 3 * p - 1, 4 * p}) {
        const auto check = [&](ScheduleKind kind, int v, double bubble) {
          const ScheduleShape shape = {kind, p, v, m};
          const StageCosts chunk = {.forward = f / v, .backward_input = b / v, .backward_weight = w / v};
          const Simulation s = simulate(shape, uniform(shape, chunk));
          ASSERT_EQ(s.problem, "");
          EXPECT_NEAR(s.makespan, m * (f + b + w) + bubble, 1e-9) << str(shape) << " F " << f << " B_input " << b << " W " << w;
          for (const double idle : s.bubble) EXPECT_NEAR(idle, bubble, 1e-9);
          for (const double share : s.bubble_share) EXPECT_NEAR(share, bubble / s.makespan, 1e-12);
        };
        check(ScheduleKind::gpipe, 1, (p - 1) * (f + b + w));
        check(ScheduleKind::one_f_one_b, 1, (p - 1) * (f + b + w));
        check(ScheduleKind::zero_bubble, 1,
              (p - 1) * std::max({f + b - w, f, b}));  // the first rank waits P-1 B_input before its first, the last P-1 F
        for (const int v : {1, 2, 4}) check(ScheduleKind::interleaved, v, (p - 1) * (f + b + w) / v);
      }
    }
  }
}

// Virtual stages and delayed weight gradients together: never slower than interleaved, no more memory, and near ZB-H1's bubble / V.
TEST(ScheduleSimulator, ZeroBubbleOfChunksBeatsInterleaved) {
  for (const int p : {2, 4, 8}) {
    for (const int v : {2, 4}) {
      for (const int m : {p, 2 * p, 4 * p, 4 * p + 1}) {
        const Simulation zero = simulate({ScheduleKind::zero_bubble, p, v, m}, uniform({ScheduleKind::zero_bubble, p, v, m}));
        const Simulation other = simulate({ScheduleKind::interleaved, p, v, m}, uniform({ScheduleKind::interleaved, p, v, m}));
        EXPECT_LE(zero.makespan, other.makespan - 1.25 * (p - 1)) << p << " " << v << " " << m;  // 2 (P-1) were the ideal
        EXPECT_LE(most(zero.peak_saved), most(other.peak_saved));
      }
    }
  }
}

TEST(ScheduleSimulator, PeaksOfMemory) {
  for (const int p : {1, 2, 4, 8}) {
    for (const int m : {2, 8, 32}) {
      const StageCosts costs = {.saved = 100, .weight_saved = 60, .weight_new = 0};
      const auto run = [&](ScheduleKind kind, const StageCosts& c) { return simulate({kind, p, 1, m}, uniform({kind, p, 1, m}, c)); };
      const Simulation gpipe = run(ScheduleKind::gpipe, costs), one = run(ScheduleKind::one_f_one_b, costs),
                       zero = run(ScheduleKind::zero_bubble, costs);
      for (int r = 0; r < p; ++r) {
        EXPECT_EQ(gpipe.peak_saved[r], m);
        EXPECT_EQ(one.peak_saved[r], std::min(p - r, m));
        EXPECT_EQ(one.peak_bytes[r], 100.0 * std::min(p - r, m));
        EXPECT_LE(zero.peak_saved[r], p);
        // p - r whole ones and what r weight gradients wait for: the last rank's first weight gradient is due after p backwards.
        if (m >= 2 * p) {
          EXPECT_EQ(zero.peak_bytes[r], 100.0 * (p - r) + 60.0 * r);
        }
      }
      EXPECT_LE(most(zero.peak_bytes), most(one.peak_bytes));
      EXPECT_LE(most(zero.peak_saved), most(one.peak_saved));
    }
  }
  // Full recomputation keeps 2 of 100 bytes until the backward, but a delayed weight gradient needs what was computed again: more than 1F1B,
  // and said so.
  const StageCosts full = {.saved = 2, .weight_saved = 2, .weight_new = 80};
  const ScheduleShape zero = {ScheduleKind::zero_bubble, 4, 1, 16}, one = {ScheduleKind::one_f_one_b, 4, 1, 16};
  EXPECT_EQ(most(simulate(one, uniform(one, full)).peak_bytes), 8);
  EXPECT_EQ(simulate(zero, uniform(zero, full)).peak_bytes[3], 4 * 82);
  // Interleaved: 2 (P - 1) + (V - 1) P + 1 chunks of 1 / V each on the first rank.
  const ScheduleShape interleaved = {ScheduleKind::interleaved, 4, 2, 16};
  for (int r = 0; r < 4; ++r) EXPECT_EQ(simulate(interleaved, uniform(interleaved)).peak_saved[r], 2 * (3 - r) + 4 + 1);
}

// A heavier stage: the makespan is that of the slowest, its own idle share is the least, and nothing is lost.
TEST(ScheduleSimulator, StagesOfTheirOwn) {
  const ScheduleShape shape = {ScheduleKind::one_f_one_b, 4, 1, 32};
  std::vector<StageCosts> costs = uniform(shape);
  costs[3].forward = 2;
  const Simulation s = simulate(shape, costs);
  EXPECT_EQ(s.makespan, 3 * 1 + 32 * 4 + 3 * 2);
  EXPECT_EQ(s.bubble[3], 9);
  EXPECT_EQ(s.bubble[0], 9 + 32);
}

// The costs of a layout are sums, and an uneven one pays where the head weighs two layers: 1F1B follows its slowest stage.
TEST(ScheduleSimulator, CostsOfALayout) {
  const StageCosts layer = {.forward = 1, .backward_input = 1, .backward_weight = 1, .saved = 10, .weight_saved = 6, .weight_new = 1};
  const StageCosts embedding = {0, 0, 0, 2, 0, 0}, head = {2, 2, 2, 3, 0, 0};
  const std::vector<StageCosts> layers(14, layer);
  const std::vector<StageCosts> even = stage_costs(even_layout(14, 4, 1), layers, embedding, head);
  const std::vector<StageCosts> uneven = stage_costs(parse_layout("4,4,4,2", 14, 4, 1), layers, embedding, head);
  EXPECT_EQ(even[0].saved, 3 * 10 + 2);
  EXPECT_EQ(even[1].forward, 4);
  EXPECT_EQ(even[3].forward, 3 + 2);
  EXPECT_EQ(even[3].saved, 3 * 10 + 3);
  EXPECT_EQ(uneven[3].weight_saved, 12);
  EXPECT_EQ(uneven[3].weight_new, 2);
  const ScheduleShape shape = {ScheduleKind::one_f_one_b, 4, 1, 32};
  EXPECT_EQ(simulate(shape, even).makespan, 11 + 32 * 15 + 22);  // the last stage works through, 5 + 10 each; before it 3 + 4 + 4, after it 6 + 8 + 8
  EXPECT_EQ(simulate(shape, uneven).makespan, (32 + 3) * 12);
}

// Messages on the way are hidden behind a step where they are posted ahead: interleaved's second step of lead is for this.
TEST(ScheduleSimulator, PostedReceivesHideTheWay) {
  const ScheduleShape one = {ScheduleKind::one_f_one_b, 4, 1, 32}, interleaved = {ScheduleKind::interleaved, 4, 2, 32};
  const double slow = simulate(one, uniform(one), 0.5).makespan - simulate(one, uniform(one)).makespan;
  const double hidden = simulate(interleaved, uniform(interleaved), 0.5).makespan - simulate(interleaved, uniform(interleaved)).makespan;
  EXPECT_GT(slow, 32 * 0.25);      // 1F1B waits for each
  EXPECT_LE(hidden, 2 * 8 * 0.5);  // only while it fills and drains
  const Simulation s = simulate(interleaved, uniform(interleaved), 0.5);
  EXPECT_LE(most(s.peak_sends), 4);
}

// Everything that can be wrong with an order is found. A swap that is harmless (two neighbours that wait for nothing of each other)
// still is a schedule; the simulator must run it to its end and never beat the bound of the work.
TEST(ScheduleSimulator, MutantsAreCaught) {
  std::mt19937 random(7);
  for (const ScheduleKind kind : kKinds) {
    const int v = kind == ScheduleKind::interleaved ? 2 : 1;
    const ScheduleShape shape = {kind, 4, v, 8};
    const Orders orders = make_orders(shape);
    const auto costs = uniform(shape);
    const double ideal = simulate(shape, orders, costs).makespan;
    int deadlocks = 0, refused = 0;
    for (int trial = 0; trial < 200; ++trial) {
      Orders mutant = orders;
      std::vector<Action>& order = mutant[random() % 4];
      const std::size_t i = random() % order.size(), j = random() % order.size();
      // Lost, twice, another micro-batch, another chunk: always an error.
      Orders lost = orders, twice = orders;
      lost[trial % 4].erase(lost[trial % 4].begin() + i);
      twice[trial % 4].insert(twice[trial % 4].begin() + j, twice[trial % 4][i]);
      EXPECT_NE(simulate(shape, lost, costs).problem, "");
      EXPECT_NE(simulate(shape, twice, costs).problem, "");
      Orders other = orders;
      other[trial % 4][i].micro_batch = (other[trial % 4][i].micro_batch + 1) % 8;
      EXPECT_NE(simulate(shape, other, costs).problem, "");
      if (i == j) continue;
      std::swap(order[i], order[j]);
      const Simulation s = simulate(shape, mutant, costs);
      if (s.problem.rfind("deadlock", 0) == 0)
        ++deadlocks;
      else if (!s.problem.empty())
        ++refused;
      else
        EXPECT_GT(s.makespan, ideal - 8 * 3) << "faster than the work";
    }
    EXPECT_GT(refused, 20) << name_of(kind);
    EXPECT_GT(deadlocks, 5) << name_of(kind);
  }
  // The one that no rank sees alone: both are whole orders, together they wait for each other.
  const ScheduleShape shape = {ScheduleKind::one_f_one_b, 2, 1, 4};
  Orders orders = make_orders(shape);
  std::swap(orders[0][1], orders[0][2]);  // the backward of micro-batch 0 before the forward of 1: as the last rank does
  EXPECT_EQ(simulate(shape, orders, uniform(shape)).problem, "");
  orders = make_orders(shape);
  std::swap(orders[1][0], orders[1][2]);  // F1 B0 F0 on the last rank
  EXPECT_NE(simulate(shape, orders, uniform(shape)).problem.find("stands before"), std::string::npos);
  orders = make_orders(shape);
  for (Action& a : orders[0]) a.micro_batch = a.micro_batch == 0 ? 0 : a.micro_batch % 3 + 1;  // 0 2 3 1 against 0 1 2 3
  const std::string why = simulate(shape, orders, uniform(shape)).problem;
  EXPECT_NE(why.find("deadlock"), std::string::npos) << why;
  EXPECT_NE(why.find("rank 1 waits"), std::string::npos) << why;
}

TEST(ScheduleDrawing, TextIsTheGoldenOne) {
  const auto draw = [](const ScheduleShape& shape) { return draw_text(shape, simulate(shape, uniform(shape))); };
  EXPECT_EQ(draw({ScheduleKind::one_f_one_b, 3, 1, 4}),
            "rank 0   F0 F1 F2 ............B0    F3 B1    ...B2    ...B3\n"
            "rank 1   ...F0 F1 ......B0    F2 B1    F3 B2    ...B3    ......\n"
            "rank 2   ......F0 B0    F1 B1    F2 B2    F3 B3    ............\n");
  EXPECT_EQ(draw({ScheduleKind::zero_bubble, 3, 1, 4}),
            "rank 0   F0 F1 F2 ......B0 W0 F3 B1 W1 B2 W2 B3 W3\n"
            "rank 1   ...F0 F1 ...B0 F2 B1 W0 F3 B2 W1 B3 W2 W3\n"
            "rank 2   ......F0 B0 F1 B1 F2 B2 W0 F3 B3 W1 W2 W3\n");
  EXPECT_EQ(draw({ScheduleKind::interleaved, 2, 2, 2}),
            "rank 0   F0a F1a F0b F1b ........B0b     ....B1b     B0a     B1a\n"
            "rank 1   ....F0a F1a F0b B0b     F1b B1b     B0a     B1a     ........\n");
}

TEST(ScheduleDrawing, SvgShowsEveryAction) {
  const ScheduleShape shape = {ScheduleKind::zero_bubble, 4, 2, 8};
  const std::string svg = draw_svg(shape, simulate(shape, uniform(shape)));
  const auto count = [&](const std::string& word) {
    int n = 0;
    for (std::size_t at = svg.find(word); at != std::string::npos; at = svg.find(word, at + 1)) ++n;
    return n;
  };
  EXPECT_EQ(count("<title>"), 3 * 8 * 2 * 4);
  EXPECT_EQ(count("<title>F"), 8 * 2 * 4);
  EXPECT_EQ(count("<svg "), 1);
  EXPECT_EQ(count("</svg>"), 1);
  EXPECT_EQ(count("<rect") - 2 * count("<title>") + count("</rect>"), 1 + 4 + 4);  // background, ranks, legend; each action's is closed
  EXPECT_NE(svg.find("weight gradient"), std::string::npos);
  EXPECT_EQ(svg.find("href"), std::string::npos) << "needs no other file";
}

}  // namespace
}  // namespace af
