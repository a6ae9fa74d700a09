// Reducing gradients, the sharded optimizer and gathering values on ranks that are threads, against one rank that is given the
// gradients' sums.
#include "parallel/data_parallel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <optional>
#include <thread>

#include "parallel/optimizer.h"
#include "tests/parallel/toy_model.h"
#include "tests/parallel/thread_sanitizer.h"

namespace af::test {
namespace {

constexpr int kSteps = 3;
const OptimizerSettings kSettings{.clip_grad = 3.0};

struct Options {
  ToyConfig toy;
  DType dtype = DType::f64;
  std::int64_t bucket_numel = 1500;
  bool overlap = true;
  bool count_copies = false;     // mutant: ranges that other ranks hold as well are counted by each
  int not_finite_rank = -1;      // has an infinity among its gradients in step 1
  double loss_of_step_1 = 0;
  CommFault fault{};
};

// One rank's model and what it needs for a step.
struct Rank {
  Rank(const Options& o, const Mesh& m, int number) : options(o), mesh(m), world_rank(number), set(device, o.dtype) {
    add_toy_parameters(o.toy, mesh, set);
    Sharding sharding = sharding_of(mesh);
    sharding.bucket_numel = o.bucket_numel;
    set.allocate(sharding);
    initialize(context, set, 5, 0.3);
    if (o.count_copies) {
      for (Parameter& p : set.parameters())
        std::erase_if(p.replicated, [](const ReplicatedRange& range) { return range.gradients == Gradients::equal; });
    }
    optimizer.emplace(device, set, mesh.world);
  }

  // This rank's part of the gradient: its own random numbers, but in ranges that are equal over a group those of its first rank.
  void fill_gradients(int step) {
    for (const Parameter& p : set.parameters())
      for_each_element(p, 0, p.numel(), [&](const Slab& slab, std::int64_t i, std::int64_t global) {
        int contributor = world_rank;
        if (p.name == "router" && mesh.tp.size() > 1) contributor = mesh.tp.world_rank(0);
        set_element(p.gradient.view({p.numel()}), i, contribution(slab.name, global, contributor, step));
      });
  }
  static double contribution(const std::string& name, std::int64_t global, int contributor, int step) {
    const std::uint64_t stream = hash_name(name) + std::uint64_t(contributor * 10 + step);
    return random_uniform(17, stream, std::uint64_t(global)) - 0.4;
  }
  void add_to(Tensors& sums, int step) const {
    for (const Parameter& p : set.parameters()) {
      if (p.name == "router" && mesh.tp.rank() != 0) continue;  // equal there
      for_each_element(p, 0, p.numel(), [&](const Slab& slab, std::int64_t, std::int64_t global) {
        std::vector<double>& sum = sums[slab.name];
        sum.resize(std::size_t(slab.global_shape.numel()));
        sum[std::size_t(global)] += contribution(slab.name, global, world_rank, step);
      });
    }
  }

  Options options;
  Mesh mesh;
  int world_rank;
  Device device;
  Arena scratch{device, "scratch"};
  Context context{device, scratch};
  ParameterSet set;
  std::optional<Optimizer> optimizer;
};

struct Outcome {
  std::vector<double> grad_norms, params_norms;
  std::vector<bool> skipped;
  Tensors values;       // after the last step
  double spread = 0;    // largest difference between two ranks' copies of an element
  std::uint64_t digest = 0;  // of all bits on all ranks
  std::vector<std::string> bytes_wrong;
};

void collect_values(const ParameterSet& set, Outcome& outcome) {
  for (const Parameter& p : set.parameters())
    for_each_element(p, 0, p.numel(), [&](const Slab& slab, std::int64_t i, std::int64_t global) {
      std::vector<double>& whole = outcome.values[slab.name];
      whole.resize(std::size_t(slab.global_shape.numel()), NAN);
      const double value = element(p.value.view({p.numel()}), i);
      double& there = whole[std::size_t(global)];
      if (std::isnan(there)) there = value;
      outcome.spread = std::max(outcome.spread, std::abs(value - there));
    });
}

// What a rank should have sent over dp and edp in a step, in bytes.
std::pair<std::int64_t, std::int64_t> expected_bytes(const ParameterSet& set) {
  std::int64_t bytes[2] = {};
  for (const Bucket& b : set.buckets())
    bytes[int(b.grid)] += (b.end - b.begin) * (b.ranks - 1) / b.ranks * std::int64_t(size_of(set.dtype()) + size_of(accumulator_of(set.dtype())));
  return {bytes[0], bytes[1]};
}

Outcome train(const MeshShape& shape, const Options& options) {
  Outcome outcome;
  std::mutex mutex;
  std::vector<std::uint64_t> digests(std::size_t(shape.world()));
  run_ranks(shape.world(), {{}, options.fault}, [&](const Comm& world) {
    const Mesh mesh(shape, world);
    Rank rank(options, mesh, world.rank());
    GradientReducer reducer(mesh, rank.set, options.overlap);
    ParameterGatherer gatherer(mesh, rank.set, options.overlap);
    std::vector<const Parameter*> order;
    for (const Parameter& p : rank.set.parameters()) order.push_back(&p);
    for (int step = 0; step < kSteps; ++step) {
      rank.fill_gradients(step);
      if (step == 1 && world.rank() == options.not_finite_rank)
        set_element(rank.set.parameters()[3].gradient.view({rank.set.parameters()[3].numel()}), 2, std::numeric_limits<double>::infinity());
      // Backwards, but for neighbours in another order; the last few are not said to be complete.
      std::vector<const Parameter*> backward(order.rbegin(), order.rend());
      for (std::size_t i = 0; i + 1 < backward.size(); i += 2)
        if (random_below(9, 1, i, 2)) std::swap(backward[i], backward[i + 1]);
      backward.resize(backward.size() - std::size_t(step));
      const AxisBytes before = world.bytes();
      for (const Parameter* p : backward) reducer.complete(*p);
      reducer.finish();
      const OptimizerResult result = rank.optimizer->step(rank.context, kSettings, 0.01, step == 1 ? options.loss_of_step_1 : 0);
      gatherer.start();
      for (const Parameter* p : order) gatherer.need(*p);
      gatherer.finish();
      const AxisBytes after = world.bytes();
      const double params_norm = rank.optimizer->params_norm(rank.context);
      std::lock_guard lock(mutex);
      const auto [dense, expert] = expected_bytes(rank.set);
      if (after[Axis::dp] - before[Axis::dp] != dense || after[Axis::edp] - before[Axis::edp] != expert)
        outcome.bytes_wrong.push_back(fmt::format("dp {} for {}, edp {} for {}", after[Axis::dp] - before[Axis::dp], dense, after[Axis::edp] - before[Axis::edp], expert));
      if (world.rank() == 0) {
        outcome.grad_norms.push_back(result.grad_norm);
        outcome.params_norms.push_back(params_norm);
        outcome.skipped.push_back(result.skipped);
      }
    }
    if (options.fault.what == CommFault::What::early_wait) std::this_thread::sleep_for(std::chrono::milliseconds(10 * options.fault.delay_ms));
    world.barrier().wait();
    std::lock_guard lock(mutex);
    collect_values(rank.set, outcome);
    std::string bits(static_cast<const char*>(rank.set.values().data), rank.set.values().bytes());
    for (OptimizerState state : {OptimizerState::master, OptimizerState::exp_avg, OptimizerState::exp_avg_sq})
      for (int b = 0; b < int(rank.set.buckets().size()); ++b) {
        const Tensor& t = rank.optimizer->state(state, b);
        bits.append(static_cast<const char*>(t.data), t.bytes());
      }
    digests[std::size_t(world.rank())] = hash_name(bits);
  });
  for (std::uint64_t d : digests) outcome.digest = outcome.digest * 31 + d;
  return outcome;
}

// The same on one rank: it gets the sums of what all ranks of the layout would have had.
Outcome reference(const MeshShape& shape, const Options& options) {
  std::vector<Tensors> sums(kSteps);
  std::mutex mutex;
  run_ranks(shape.world(), {}, [&](const Comm& world) {
    Rank rank(options, Mesh(shape, world), world.rank());
    std::lock_guard lock(mutex);
    for (int step = 0; step < kSteps; ++step) rank.add_to(sums[std::size_t(step)], step);
  });
  Outcome outcome;
  Rank rank(options, Mesh(), 0);
  for (int step = 0; step < kSteps; ++step) {
    for (const Parameter& p : rank.set.parameters())
      for_each_element(p, 0, p.numel(), [&](const Slab& slab, std::int64_t i, std::int64_t global) {
        set_element(p.gradient.view({p.numel()}), i, sums[std::size_t(step)].at(slab.name)[std::size_t(global)]);
      });
    const OptimizerResult result = rank.optimizer->step(rank.context, kSettings, 0.01);
    outcome.grad_norms.push_back(result.grad_norm);
    outcome.params_norms.push_back(rank.optimizer->params_norm(rank.context));
  }
  collect_values(rank.set, outcome);
  return outcome;
}

// Largest difference of values, and of norms (relative).
double value_difference(const Outcome& a, const Outcome& b) {
  EXPECT_EQ(a.values.size(), b.values.size());
  double worst = 0;
  for (const auto& [name, values] : a.values) {
    const std::vector<double>& others = b.values.at(name);
    EXPECT_EQ(values.size(), others.size()) << name;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double d = std::abs(values[i] - others[i]);
      worst = d <= worst ? worst : d;  // a NaN stays
    }
  }
  return worst;
}
double norm_difference(const Outcome& a, const Outcome& b) {
  double worst = 0;
  for (int s = 0; s < kSteps; ++s) {
    const std::size_t i = std::size_t(s);
    worst = std::max({worst, std::abs(a.grad_norms[i] / b.grad_norms[i] - 1), std::abs(a.params_norms[i] / b.params_norms[i] - 1)});
  }
  return worst;
}

const MeshShape kShapes[] = {
    {1, 1, 2, 1, 1, 1}, {1, 2, 2, 1, 1, 1}, {2, 1, 2, 1, 1, 4}, {2, 2, 2, 1, 2, 2}, {4, 1, 2, 1, 1, 2}, {1, 1, 8, 1, 1, 4},
    {2, 1, 1, 2, 2, 1}, {1, 1, 3, 1, 1, 1}, {2, 1, 2, 2, 1, 2}, {1, 2, 1, 3, 1, 2}, {1, 1, 1, 1, 1, 1},
};

TEST(DataParallel, EqualsOneRankWithTheSummedGradients) {
  for (const MeshShape& shape : kShapes)
    for (bool tied : {false, true}) {
      Options options;
      options.toy.tied = tied;
      const Outcome one = reference(shape, options);
      for (bool overlap : {false, true}) {
        options.overlap = overlap;
        options.bucket_numel = overlap ? 700 : 4000;
        const Outcome many = train(shape, options);
        const std::string where = fmt::format("{} tied {} overlap {}", text(shape), tied, overlap);
        EXPECT_LT(value_difference(many, one), 1e-12) << where;
        EXPECT_LT(norm_difference(many, one), 1e-12) << where;
        EXPECT_EQ(many.spread, 0) << where;  // copies are equal bit by bit
        EXPECT_TRUE(many.bytes_wrong.empty()) << where << ": " << many.bytes_wrong[0];
      }
      EXPECT_GT(one.grad_norms[0], kSettings.clip_grad);  // clipping is at work
    }
}

TEST(DataParallel, AnyLayoutEqualsOneRank) {
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    Options options;
    options.toy.tied = random_below(seed, 21, 0, 2);
    options.bucket_numel = std::int64_t(random_below(seed, 21, 1, 6000)) + 1;
    const MeshShape shape = random_mesh(seed + 1000, 16, options.toy);
    const Outcome one = reference(shape, options), many = train(shape, options);
    const std::string where = fmt::format("{} tied {}, seed {}", text(shape), options.toy.tied, seed);
    EXPECT_LT(value_difference(many, one), 1e-12) << where;
    EXPECT_LT(norm_difference(many, one), 1e-12) << where;
    EXPECT_EQ(many.spread, 0) << where;
    if (shape.dp * shape.cp > 8 || shape.edp() > 8) continue;  // Comm sends small parts of large groups through a tree: more bytes, fewer messages
    EXPECT_TRUE(many.bytes_wrong.empty()) << where << ": " << many.bytes_wrong[0];
  }
}

TEST(DataParallel, Fp32AndBf16WithinRounding) {
  for (DType dtype : {DType::f32, DType::bf16})
    for (const MeshShape& shape : {kShapes[2], kShapes[3], kShapes[7]}) {
      Options options;
      options.dtype = dtype;
      const Outcome one = reference(shape, options), many = train(shape, options);
      // A master that moved by an ulp of fp32 may round to the next bf16: 2^-8 of values up to 1.5.
      EXPECT_LT(value_difference(many, one), dtype == DType::f32 ? 1e-5 : 1.0 / 128) << text(shape);
      EXPECT_LT(norm_difference(many, one), 1e-5) << text(shape);
      EXPECT_EQ(many.spread, 0) << text(shape);
      EXPECT_TRUE(many.bytes_wrong.empty()) << text(shape);
    }
}

TEST(DataParallel, TwoRunsAreBitEqual) {
  for (DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    Options options;
    options.dtype = dtype;
    const MeshShape shape = {2, 2, 2, 1, 1, 2};
    const Outcome first = train(shape, options);
    EXPECT_EQ(first.digest, train(shape, options).digest);
    options.overlap = false;
    EXPECT_EQ(first.digest, train(shape, options).digest);
  }
}

TEST(DataParallel, AnInfinityOnOneRankSkipsTheStepOnAll) {
  for (int rank : {0, 3, 7, -1}) {
    Options options;
    options.not_finite_rank = rank;
    if (rank < 0) options.loss_of_step_1 = NAN;
    const Outcome outcome = train({2, 2, 2, 1, 1, 2}, options);
    EXPECT_EQ(outcome.skipped, (std::vector<bool>{false, true, false}));
    EXPECT_EQ(outcome.params_norms[0], outcome.params_norms[1]);
    EXPECT_NE(outcome.params_norms[0], outcome.params_norms[2]);
    EXPECT_TRUE(std::isfinite(outcome.params_norms[2]));
    EXPECT_EQ(outcome.spread, 0);
  }
}

// What the comparison above must notice.
TEST(DataParallel, MutantsAreCaught) {
  const MeshShape shape = {2, 2, 2, 1, 1, 2};
  const Options options;
  const Outcome one = reference(shape, options);
  const auto caught = [&](const char* what, const Options& mutant) {
    bool seen = false;
    for (int trial = 0; trial < 5 && !seen; ++trial) {  // on a busy machine a rank may come so late that what it did not wait for is there
      const Outcome outcome = train(shape, mutant);
      seen = !(value_difference(outcome, one) < 1e-12) || !(norm_difference(outcome, one) < 1e-12);
    }
    EXPECT_TRUE(seen) << what;
  };
  Options counted = options;
  counted.count_copies = true;
  EXPECT_GT(norm_difference(train(shape, counted), one), 1e-3);  // the norm itself, not only what follows from clipping by it
  using What = CommFault::What;
  const auto fault = [&](What what, Axis axis, CommKind kind) {
    Options mutant = options;
    mutant.fault = {what, axis, kind};
    return mutant;
  };
  caught("the sum of partial gradients dropped", fault(What::drop, Axis::tp, CommKind::all_reduce));
  caught("no reduce-scatter of dense gradients", fault(What::drop, Axis::dp, CommKind::reduce_scatter));
  caught("no reduce-scatter of expert gradients", fault(What::drop, Axis::edp, CommKind::reduce_scatter));
  caught("no gathering of values", fault(What::drop, Axis::dp, CommKind::all_gather));
  caught("norm of one rank alone", fault(What::drop, Axis::world, CommKind::all_reduce));
  if (test::kRacesAreErrors) return;
  caught("reduce-scatter not waited for", fault(What::early_wait, Axis::dp, CommKind::reduce_scatter));
  caught("partial sums not waited for", fault(What::early_wait, Axis::tp, CommKind::all_reduce));
}

// Collectives begin while the backward goes on, in an order that no rank can change.
TEST(DataParallel, BucketsWaitForTheirTurn) {
  const MeshShape shape = {1, 1, 2, 1, 1, 1};
  run_ranks(2, {}, [&](const Comm& world) {
    Options options;
    options.bucket_numel = 1;  // one parameter each
    const Mesh mesh(shape, world);
    Rank rank(options, mesh, world.rank());
    GradientReducer reducer(mesh, rank.set, true);
    const auto sent = [&] { return world.bytes()[Axis::dp] + world.bytes()[Axis::edp]; };
    const auto arrives = [&](std::int64_t bytes) {
      for (int i = 0; i < 2000 && sent() < bytes; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return sent() == bytes;
    };
    const std::deque<Parameter>& parameters = rank.set.parameters();
    rank.fill_gradients(0);
    const std::int64_t begin = sent();
    reducer.complete(parameters.front());  // the last in turn
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_EQ(sent(), begin);
    reducer.complete(parameters.back());
    const Bucket& last = rank.set.buckets()[std::size_t(rank.set.bucket_of(parameters.back()))];
    EXPECT_TRUE(arrives(begin + last.share_numel() * std::int64_t(sizeof(double))));  // before finish()
    reducer.finish();
  });
}

TEST(ParameterSet, SharesCoverEachParameterOnce) {
  for (std::int64_t bucket_numel : {1, 333, 5000, 1000000})
    for (int ranks : {1, 2, 3, 8}) {
      std::map<std::string, std::vector<int>> held;
      std::int64_t buckets = 0;
      for (int r = 0; r < ranks; ++r) {
        ParameterSet set(Device{}, DType::bf16);
        add_toy_parameters({}, Mesh(), set);
        set.allocate({ranks, r, ranks, r, bucket_numel});
        buckets = std::int64_t(set.buckets().size());
        for (const Bucket& b : set.buckets()) {
          EXPECT_EQ(b.begin % 32, 0);
          EXPECT_EQ((b.end - b.begin) % (32 * ranks), 0);
          for (const Parameter* p : b.parameters) EXPECT_EQ(p->grid, b.grid);
        }
        for (const Parameter& p : set.parameters()) {
          const ParameterSet::Share share = set.share_of(p);
          std::vector<int>& times = held[fmt::format("{}{}", p.slabs[0].name, p.name)];
          times.resize(std::size_t(p.numel()));
          for (std::int64_t i = share.begin; i < share.end; ++i) times[std::size_t(i)]++;
          if (share.begin == share.end) continue;
          EXPECT_EQ(set.begin_of(p) + share.begin, set.buckets()[std::size_t(share.bucket)].share_begin() + share.offset);
        }
      }
      for (const auto& [name, times] : held) EXPECT_EQ(std::count(times.begin(), times.end(), 1), std::int64_t(times.size())) << name;
      EXPECT_GE(buckets, 2);
      EXPECT_EQ(buckets == 2, bucket_numel == 1000000);
      EXPECT_EQ(buckets == std::int64_t(held.size()), bucket_numel == 1);
    }
}

TEST(ParameterSet, CountedRangesLeaveOutCopies) {
  run_ranks(2, {}, [&](const Comm& world) {
    Parameter parameter;
    parameter.shape = {100};
    parameter.replicated = {{10, 20, world, Gradients::equal}, {50, 60, world, Gradients::partial}, {90, 100, world, Gradients::equal}};
    const auto counted = [&](std::int64_t begin, std::int64_t end) {
      std::string ranges;
      for_each_counted(parameter, begin, end, [&](std::int64_t b, std::int64_t e) { ranges += fmt::format("{}-{} ", b, e); });
      return ranges;
    };
    const bool first = world.rank() == 0;
    EXPECT_EQ(counted(0, 100), first ? "0-100 " : "0-10 20-50 60-90 ");
    EXPECT_EQ(counted(15, 55), first ? "15-55 " : "20-50 ");
    EXPECT_EQ(counted(10, 20), first ? "10-20 " : "");
    EXPECT_EQ(counted(12, 18), first ? "12-18 " : "");
    EXPECT_EQ(counted(5, 5), "");
    EXPECT_EQ(counted(60, 95), first ? "60-95 " : "60-90 ");
  });
}

}  // namespace
}  // namespace af::test
