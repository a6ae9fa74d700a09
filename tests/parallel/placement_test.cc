// Pieces own every element of the model once, in any layout; a state that moves between layouts is what sharding it directly gives.
#include "parallel/placement.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>

#include "parallel/data_parallel.h"
#include "tests/parallel/toy_model.h"

namespace af::test {
namespace {

constexpr OptimizerState kStates[] = {OptimizerState::master, OptimizerState::exp_avg, OptimizerState::exp_avg_sq};

Sharding sharding_with(const Mesh& mesh, std::int64_t bucket_numel) {
  Sharding sharding = sharding_of(mesh);
  sharding.bucket_numel = bucket_numel;
  return sharding;
}

std::int64_t index_of(const Slab& slab, std::int64_t row, std::int64_t col) { return row * (slab.global_shape.rank > 1 ? slab.global_shape[1] : 1) + col; }

// f(piece, element of the bucket's share, element of the published tensor) for each element of a piece.
template <class F>
void for_each_element_of(const StatePiece& piece, F f) {
  for (std::int64_t r = 0; r < piece.where.rows; ++r)
    for (std::int64_t c = 0; c < piece.where.cols; ++c)
      f(piece, piece.offset + r * piece.where.cols + c, index_of(*piece.slab, piece.where.row + r, piece.where.col + c));
}

TEST(Placement, EveryElementIsOwnedOnceInAnyLayout) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    ToyConfig toy;
    toy.tied = seed % 2;
    const MeshShape shape = random_mesh(seed, 16, toy);
    const std::int64_t bucket_numel = std::int64_t(random_below(seed, 7, 0, 5000)) + 1, segment = std::int64_t(random_below(seed, 7, 1, 3)) * 97;
    std::map<std::string, std::vector<int>> owned, expected;
    std::mutex mutex;
    run_ranks(shape.world(), {}, [&](const Comm& world) {
      const Mesh mesh(shape, world);
      ParameterSet set(Device{}, DType::bf16);
      add_toy_parameters(toy, mesh, set);
      set.allocate_values(sharding_with(mesh, bucket_numel));
      const std::vector<StatePiece> counted = segment ? pieces_of(set, Held::counted, segment) : pieces_of(set, Held::counted), all = pieces_of(set, Held::all);
      std::lock_guard lock(mutex);
      for (const StatePiece& piece : counted) {
        std::vector<int>& times = owned[piece.slab->name];
        times.resize(std::size_t(piece.slab->global_shape.numel()));
        for_each_element_of(piece, [&](const StatePiece&, std::int64_t, std::int64_t global) { times.at(std::size_t(global))++; });
        if (segment) {
          EXPECT_EQ(piece.offset / segment, (piece.offset + piece.where.numel() - 1) / segment);
        }
      }
      std::int64_t share = 0, in_pieces = 0;  // the share is covered, copies included
      for (const Parameter& p : set.parameters()) share += set.share_of(p).end - set.share_of(p).begin;
      for (const StatePiece& piece : all) in_pieces += piece.where.numel();
      EXPECT_EQ(share, in_pieces);
    });
    ParameterSet whole(Device{}, DType::bf16);
    add_toy_parameters(toy, Mesh(), whole);
    for (const Parameter& p : whole.parameters())
      for (const Slab& slab : p.slabs) expected[slab.name].assign(std::size_t(slab.global_shape.numel()), 1);
    EXPECT_EQ(owned, expected) << text(shape) << ", seed " << seed;
  }
}

double known(OptimizerState state, const std::string& name, std::int64_t global) {
  return random_uniform(std::uint64_t(state) + 1, hash_name(name), std::uint64_t(global)) + 0.5;
}
double rounded(double value, DType dtype) {
  if (dtype == DType::f64) return value;
  if (dtype == DType::f32) return float(value);
  std::uint32_t bits;
  const float single = float(value);
  std::memcpy(&bits, &single, 4);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

// Elements that are not as they should be: state of the share, values and gradients of everything.
std::int64_t wrong_elements(const ParameterSet& set, const Optimizer& optimizer) {
  std::int64_t wrong = 0;
  const DType accumulator = accumulator_of(set.dtype());
  for (const StatePiece& piece : pieces_of(set, Held::all))
    for (OptimizerState state : kStates)
      for_each_element_of(piece, [&](const StatePiece& p, std::int64_t at, std::int64_t global) {
        wrong += element(optimizer.state(state, p.bucket), at) != rounded(known(state, p.slab->name, global), accumulator);
      });
  for (const Parameter& p : set.parameters())
    for_each_element(p, 0, p.numel(), [&](const Slab& slab, std::int64_t i, std::int64_t global) {
      const double master = rounded(known(OptimizerState::master, slab.name, global), accumulator);
      wrong += element(p.value.view({p.numel()}), i) != rounded(master, set.dtype());
      wrong += element(p.gradient.view({p.numel()}), i) != 0;
    });
  return wrong;
}

struct MoveOptions {
  DType dtype = DType::f32;
  std::uint64_t seed = 0;
  CommFault fault{};
};
// Moves a known state from one layout to another, and on to a third; returns the wrong elements.
std::int64_t move(const ToyConfig& toy, const std::vector<MeshShape>& shapes, const MoveOptions& options) {
  std::atomic<std::int64_t> wrong = 0;
  run_ranks(shapes[0].world(), {{}, options.fault}, [&](const Comm& world) {
    const Device device;
    Arena scratch(device, "scratch");
    const Context context{device, scratch};
    std::unique_ptr<ParameterSet> set;
    std::unique_ptr<Optimizer> optimizer;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      const Mesh mesh(shapes[i], world);
      const std::int64_t bucket_numel = std::int64_t(random_below(options.seed, 3, i, 4000)) + 1, segment = std::int64_t(random_below(options.seed, 4, i, 400)) + 20;
      auto next = std::make_unique<ParameterSet>(device, options.dtype);
      add_toy_parameters(toy, mesh, *next);
      next->allocate_values(sharding_with(mesh, bucket_numel));
      auto next_optimizer = std::make_unique<Optimizer>(device, *next, world, Optimizer::Memory::later);
      if (set) {
        redistribute(context, *set, *optimizer, mesh, *next, *next_optimizer, segment);
        for (int b = 0; b < int(set->buckets().size()); ++b) EXPECT_FALSE(optimizer->allocated(b));
        EXPECT_TRUE(set->values().empty() && set->gradients().empty());
        wrong += wrong_elements(*next, *next_optimizer);
        EXPECT_EQ(next_optimizer->steps(), 77);
      } else {
        for (int b = 0; b < int(next->buckets().size()); ++b) next_optimizer->allocate(b);
        for (const StatePiece& piece : pieces_of(*next, Held::all))
          for (OptimizerState state : kStates)
            for_each_element_of(piece, [&](const StatePiece& p, std::int64_t at, std::int64_t global) {
              set_element(next_optimizer->state(state, p.bucket), at, known(state, p.slab->name, global));
            });
        next->allocate_gradients();
        next_optimizer->set_steps(77);
      }
      set = std::move(next);
      optimizer = std::move(next_optimizer);
    }
  });
  return wrong;
}

TEST(Redistribute, EqualsShardingTheStateDirectly) {
  std::map<int, std::vector<MeshShape>> by_world;
  ToyConfig toy;
  for (std::uint64_t seed = 100; seed < 400; ++seed) {
    const MeshShape shape = random_mesh(seed, 12, toy);
    by_world[shape.world()].push_back(shape);
  }
  int moves = 0;
  for (const auto& [world, shapes] : by_world) {
    if (shapes.size() < 3) continue;
    for (std::uint64_t n = 0; n < 3; ++n) {
      toy.tied = n % 2;
      MoveOptions options{n == 0 ? DType::f32 : n == 1 ? DType::bf16 : DType::f64, std::uint64_t(world) * 10 + n};
      std::vector<MeshShape> path;
      for (std::uint64_t i = 0; i < 3; ++i) path.push_back(shapes[random_below(options.seed, 5, i, shapes.size())]);
      EXPECT_EQ(move(toy, path, options), 0) << text(path[0]) << " -> " << text(path[1]) << " -> " << text(path[2]) << ", " << name_of(options.dtype);
      ++moves;
    }
  }
  EXPECT_GT(moves, 15);
}

TEST(Redistribute, NoticesWhatDoesNotArrive) {
  const std::vector<MeshShape> path = {{2, 1, 2, 1, 1, 4}, {1, 1, 2, 2, 1, 1}};
  EXPECT_GT(move({}, path, {DType::f32, 1, {CommFault::What::drop, Axis::world, CommKind::all_to_all_v, 3}}), 0);
  EXPECT_GT(move({}, path, {DType::bf16, 1, {CommFault::What::drop, Axis::dp, CommKind::all_gather, 0}}), 0);
}

TEST(Redistribute, AnotherModelIsRefused) {
  const auto mix = [](const Comm& world) {
    const Device device;
    Arena scratch(device, "scratch");
    const Mesh mesh({1, 1, 2, 1, 1, 1}, world);
    ToyConfig toy;
    ParameterSet old_set(device, DType::f32), set(device, DType::f32);
    add_toy_parameters(toy, mesh, old_set);
    toy.experts = 9;
    add_toy_parameters(toy, mesh, set);
    old_set.allocate(sharding_of(mesh));
    set.allocate_values(sharding_of(mesh));
    Optimizer old_optimizer(device, old_set, world), optimizer(device, set, world, Optimizer::Memory::later);
    redistribute({device, scratch}, old_set, old_optimizer, mesh, set, optimizer);
  };
  try {
    run_ranks(2, {}, mix);
    FAIL() << "it was accepted";
  } catch (const InternalError& error) {
    EXPECT_NE(std::string(error.what()).find("not of one model"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace af::test
