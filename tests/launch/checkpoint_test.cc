// Checkpoints of several ranks: the file is that of one rank, and any layout reads it.
#include "launch/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "data/hdf5_file.h"
#include "launch/checkpoint_tensors.h"
#include "launch/hf_checkpoint.h"
#include "parallel/data_parallel.h"
#include "parallel/placement.h"
#include "tests/parallel/toy_model.h"

namespace af::test {
namespace {

namespace fs = std::filesystem;
constexpr OptimizerState kStates[] = {OptimizerState::master, OptimizerState::exp_avg, OptimizerState::exp_avg_sq};
constexpr const char* kGroups[] = {"master", "exp_avg", "exp_avg_sq"};

ModelConfig model_of(const ToyConfig& toy) {
  ModelConfig c;
  c.model_type = "qwen3_moe";
  c.vocab_size = toy.vocab;
  c.hidden_size = toy.hidden;
  c.num_hidden_layers = toy.layers;
  c.num_attention_heads = toy.query_heads;
  c.num_key_value_heads = toy.key_heads;
  c.head_dim = toy.head_dim;
  c.intermediate_size = 8;
  c.num_experts = toy.experts;
  c.num_experts_per_tok = 2;
  c.moe_intermediate_size = toy.width;
  c.max_position_embeddings = 64;
  c.tie_word_embeddings = toy.tied;
  return c;
}

float known(OptimizerState state, const std::string& name, std::int64_t global) {
  return float(random_uniform(std::uint64_t(state) + 1, hash_name(name), std::uint64_t(global)) + 0.5);
}
std::int64_t known_count(std::int64_t layer, std::int64_t expert) { return 100 * layer + expert + 1; }

// f(bucket, element of its share, slab, element of the tensor) for all of a rank's share.
template <class F>
void for_each_held(const ParameterSet& set, F f) {
  for (const StatePiece& piece : pieces_of(set, Held::all))
    for (std::int64_t r = 0; r < piece.where.rows; ++r)
      for (std::int64_t c = 0; c < piece.where.cols; ++c) {
        const std::int64_t cols = piece.slab->global_shape.rank > 1 ? piece.slab->global_shape[1] : 1;
        f(piece.bucket, piece.offset + r * piece.where.cols + c, *piece.slab, (piece.where.row + r) * cols + piece.where.col + c);
      }
}

struct Rank {
  Rank(const ToyConfig& toy, const MeshShape& shape, const Comm& world, DType dtype = DType::f32)
      : config(model_of(toy)), mesh(shape.world() > 1 ? Mesh(shape, world) : Mesh()), set(device, dtype) {
    add_toy_parameters(toy, mesh, set);
    Sharding sharding = sharding_of(mesh);
    sharding.bucket_numel = 1700;
    set.allocate(sharding);
    optimizer = std::make_unique<Optimizer>(device, set, mesh.world);
    const Range layers = part_of(toy.layers, mesh.shape.pp, mesh.position.pp);
    for (std::int64_t i = 0; i < toy.layers; ++i) router.emplace_back(i >= layers.begin && i < layers.end ? toy.experts : 0);
  }
  void fill_known() {
    for_each_held(set, [&](int bucket, std::int64_t at, const Slab& slab, std::int64_t global) {
      for (OptimizerState state : kStates) set_element(optimizer->state(state, bucket), at, known(state, slab.name, global));
    });
    for (std::size_t i = 0; i < router.size(); ++i)
      for (std::size_t e = 0; e < router[i].previous_counts.size(); ++e) router[i].previous_counts[e] = known_count(std::int64_t(i), std::int64_t(e));
    optimizer->set_steps(31);
    optimizer->values_from_master(context);
    ParameterGatherer(mesh, set, false).start();
  }
  std::int64_t wrong() const {
    std::int64_t n = optimizer->steps() != 31;
    for_each_held(set, [&](int bucket, std::int64_t at, const Slab& slab, std::int64_t global) {
      for (OptimizerState state : kStates) n += element(optimizer->state(state, bucket), at) != known(state, slab.name, global);
    });
    for (std::size_t i = 0; i < router.size(); ++i)
      for (std::size_t e = 0; e < router[i].previous_counts.size(); ++e) n += router[i].previous_counts[e] != known_count(std::int64_t(i), std::int64_t(e));
    return n + wrong_values();
  }
  std::int64_t wrong_values() const {
    std::int64_t n = 0;
    for (const Parameter& p : set.parameters())
      for_each_element(p, 0, p.numel(), [&](const Slab& slab, std::int64_t i, std::int64_t global) {
        const float master = known(OptimizerState::master, slab.name, global);
        const double error = std::abs(element(p.value.view({p.numel()}), i) - master);
        n += set.dtype() == DType::f32 ? error != 0 : error > master / 256;
      });
    return n;
  }
  CheckpointParts parts() { return {config, set, *optimizer, router, mesh}; }

  ModelConfig config;
  Device device;
  Arena scratch{device, "scratch"};
  Context context{device, scratch};
  Mesh mesh;
  ParameterSet set;
  std::unique_ptr<Optimizer> optimizer;
  std::vector<RouterStatistics> router;
};

class Checkpoint : public testing::Test {
 protected:
  void SetUp() override {
    root = (fs::temp_directory_path() / fmt::format("af_checkpoint_test_{}", getpid())).string();
    fs::remove_all(root);
    fs::create_directories(root);
  }
  void TearDown() override { fs::remove_all(root); }
  TrainingState state() const {
    TrainingState s;
    s.stage_name = "one";
    s.iteration = 12;
    return s;
  }
  std::string root;
};

// What the file should hold, element by element.
std::int64_t wrong_in_file(const std::string& path, const ToyConfig& toy) {
  const H5File file = H5File::open(path);
  ParameterSet whole(Device{}, DType::f32);
  add_toy_parameters(toy, Mesh(), whole);
  std::int64_t wrong = 0, tensors = 0;
  for (int g = 0; g < 3; ++g) {
    for (const Parameter& p : whole.parameters())
      for (const Slab& slab : p.slabs) {
        const H5Dataset dataset = file.dataset(fmt::format("{}/{}", kGroups[g], slab.name));
        std::vector<float> values(std::size_t(slab.global_shape.numel()));
        dataset.read(std::vector<std::int64_t>(dataset.shape().size()), dataset.shape(), H5Type::f32, values.data());
        for (std::size_t i = 0; i < values.size(); ++i) wrong += values[i] != known(kStates[g], slab.name, std::int64_t(i));
        ++tensors;
      }
    tensors -= std::int64_t(file.names(kGroups[g]).size());
  }
  return wrong + std::abs(tensors);
}

TEST_F(Checkpoint, OfAnyLayoutIsReadInAnyOther) {
  const MeshShape shapes[] = {{1, 1, 1, 1, 1, 1}, {2, 1, 2, 2, 1, 4}, {4, 2, 1, 1, 2, 2}, {1, 1, 3, 1, 1, 1}, {2, 1, 1, 3, 2, 1}};
  for (std::size_t i = 0; i < std::size(shapes); ++i) {
    ToyConfig toy;
    toy.tied = i % 2;
    const std::string folder = fmt::format("{}/{}", root, i);
    run_ranks(shapes[i].world(), {}, [&](const Comm& world) {
      Rank rank(toy, shapes[i], world);
      rank.fill_known();
      EXPECT_EQ(save_checkpoint(folder, state(), rank.parts(), "", 2), folder + "/one-12");
    });
    EXPECT_EQ(wrong_in_file(folder + "/one-12/tensors.h5", toy), 0) << text(shapes[i]);
    for (DType dtype : {DType::f32, DType::bf16})
      for (std::size_t to : {std::size_t(0), (i + 1) % std::size(shapes), (i + 3) % std::size(shapes)})
        run_ranks(shapes[to].world(), {}, [&](const Comm& world) {
          Rank rank(toy, shapes[to], world, dtype), weights(toy, shapes[to], world, dtype);
          EXPECT_EQ(load_checkpoint(rank.context, folder + "/one-12", rank.parts()).iteration, 12);
          EXPECT_EQ(rank.wrong(), 0) << text(shapes[i]) << " -> " << text(shapes[to]);
          load_weights(weights.context, folder + "/one-12", weights.set);
          EXPECT_EQ(weights.wrong_values(), 0) << text(shapes[i]) << " -> " << text(shapes[to]);
        });
  }
}

TEST_F(Checkpoint, BlocksMayCutTensorsAnywhere) {
  const ToyConfig toy;
  const MeshShape shape = {2, 1, 2, 1, 1, 2};
  for (std::int64_t block_bytes : {1, 100, 1000, 5000}) {
    const std::string path = fmt::format("{}/{}.h5", root, block_bytes);
    run_ranks(shape.world(), {}, [&](const Comm& world) {
      Rank rank(toy, shape, world);
      rank.fill_known();
      write_tensors(path, rank.config, rank.set, *rank.optimizer, world, block_bytes);
    });
    EXPECT_EQ(wrong_in_file(path, toy), 0) << block_bytes;
  }
}

TEST_F(Checkpoint, HuggingFaceFoldersAreImportedInAnyLayout) {
  for (bool tied : {false, true}) {
    ToyConfig toy;
    toy.tied = tied;
    const std::string folder = fmt::format("{}/hf{}", root, tied);
    Rank whole(toy, {}, Comm());
    whole.fill_known();
    export_hf(folder, whole.config, tensors_of(whole.set, whole.set.values()), {.dtype = "F32", .max_shard_size = 20'000});
    for (const MeshShape& shape : {MeshShape{2, 1, 2, 2, 1, 4}, MeshShape{4, 2, 1, 1, 2, 2}, MeshShape{2, 1, 1, 3, 2, 1}})
      run_ranks(shape.world(), {}, [&](const Comm& world) {
        Rank rank(toy, shape, world);
        import_hf(folder, rank.config, rank.set);
        EXPECT_EQ(rank.wrong_values(), 0) << text(shape);
      });
  }
}

TEST_F(Checkpoint, AnErrorOfOneRankIsThrownOnAll) {
  const ToyConfig toy;
  const MeshShape shape = {1, 1, 2, 2, 1, 2};
  const auto messages_of = [&](const std::function<void(Rank&)>& work) {
    std::vector<std::string> messages(std::size_t(shape.world()));
    run_ranks(shape.world(), {}, [&](const Comm& world) {
      Rank rank(toy, shape, world);
      rank.fill_known();
      try {
        work(rank);
      } catch (const UserError& error) {
        messages[std::size_t(world.rank())] = error.what();
      }
      world.barrier().wait();  // and the ranks are still of one mind
    });
    for (const std::string& m : messages) EXPECT_EQ(m, messages[0]);
    return messages[0];
  };
  const auto save = [&](Rank& rank) { save_checkpoint(root, state(), rank.parts(), "", 0); };
  EXPECT_EQ(messages_of(save), "");

  // A disk that is full after 50 of some 130 kilobytes; in a process of its own, because HDF5 never gets over it.
  const auto write_to_a_full_disk = [&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit full = {50'000, 50'000};
    setrlimit(RLIMIT_FSIZE, &full);
    const std::string message =
        messages_of([&](Rank& rank) { write_tensors(root + "/full.h5", rank.config, rank.set, *rank.optimizer, rank.mesh.world, 4000); });
    std::_Exit(message.find("full.h5") != std::string::npos && !testing::Test::HasFailure() ? 7 : 8);
  };
  EXPECT_EXIT(write_to_a_full_disk(), testing::ExitedWithCode(7), "");
  EXPECT_NE(messages_of([&](Rank& rank) {
              write_tensors(root + "/nowhere/x.h5", rank.config, rank.set, *rank.optimizer, rank.mesh.world, 4000);
            }).find("nowhere"), std::string::npos);

  // A tensor of the second stage's only.
  const std::string tensors = root + "/one-12/tensors.h5";
  {
    ToyConfig shorter;
    shorter.layers = 3;
    Rank rank(shorter, {}, Comm());
    write_tensors(tensors, rank.config, rank.set, *rank.optimizer, Comm());
  }
  const auto load = [&](Rank& rank) { load_checkpoint(rank.context, root + "/one-12", rank.parts()); };
  EXPECT_NE(messages_of(load).find("model.layers.3."), std::string::npos) << messages_of(load);
  fs::remove(root + "/one-12/state.json");
  EXPECT_NE(messages_of(load).find("no checkpoint here"), std::string::npos);
}

}  // namespace
}  // namespace af::test
