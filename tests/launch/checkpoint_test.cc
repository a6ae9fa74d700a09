// Checkpoints of several ranks: the file is that of one rank, and any layout reads it.
#include "launch/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "data/file.h"
#include "launch/checkpoint_reader.h"
#include "launch/checkpoint_saver.h"
#include "launch/hf_checkpoint.h"
#include "parallel/data_parallel.h"
#include "parallel/placement.h"
#include "tests/parallel/toy_model.h"

namespace af::test {
namespace {

namespace fs = std::filesystem;
constexpr OptimizerState kStates[] = {OptimizerState::master, OptimizerState::exp_avg, OptimizerState::exp_avg_sq};

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

// A whole save; returns what it says went wrong.
std::string save(Rank& rank, const std::string& root, const TrainingState& state, std::int64_t keep = 0) {
  CheckpointSaver saver(root, {.keep = keep});
  saver.begin(state, rank.parts(), "");
  return saver.finish()->error;
}

// What the files should hold, element by element.
std::int64_t wrong_in_files(const std::string& path, const ToyConfig& toy) {
  CheckpointReader reader(path);
  ParameterSet whole(Device{}, DType::f32);
  add_toy_parameters(toy, Mesh(), whole);
  std::int64_t wrong = 0, tensors = 0;
  for (OptimizerState state : kStates)
    for (const Parameter& p : whole.parameters())
      for (const Slab& slab : p.slabs) {
        std::vector<float> values(std::size_t(slab.global_shape.numel()));
        reader.read_rows(state, slab.name, 0, Tensor(values.data(), DType::f32, {slab.rows, slab.cols}));
        for (std::size_t i = 0; i < values.size(); ++i) wrong += values[i] != known(state, slab.name, std::int64_t(i));
        ++tensors;
      }
  reader.for_each_tensor([&](const ShardTensor&) { tensors -= 3; });
  return wrong + std::abs(tensors);
}

// tp, cp, dp, pp, etp, ep
constexpr MeshShape kLayouts[] = {{1, 1, 1, 1, 1, 1}, {2, 1, 2, 2, 1, 4}, {4, 2, 1, 1, 2, 2}, {1, 1, 3, 1, 1, 1},
                                  {2, 1, 1, 3, 2, 1}, {1, 2, 2, 2, 1, 2}, {2, 2, 1, 1, 1, 4}, {1, 1, 4, 2, 2, 2}};

TEST_F(Checkpoint, EachOfEightLayoutsIsReadInEachOfEight) {
  for (std::size_t i = 0; i < std::size(kLayouts); ++i) {
    ToyConfig toy;
    toy.tied = i % 2;
    const std::string folder = fmt::format("{}/{}", root, i);
    run_ranks(kLayouts[i].world(), {}, [&](const Comm& world) {
      Rank rank(toy, kLayouts[i], world, i / 2 % 2 ? DType::bf16 : DType::f32);  // either saves master weights in fp32
      rank.fill_known();
      EXPECT_EQ(save(rank, folder, state()), "");
    });
    EXPECT_EQ(wrong_in_files(folder + "/one-12", toy), 0) << text(kLayouts[i]);
    EXPECT_EQ(latest_checkpoint(folder), folder + "/one-12");
    EXPECT_TRUE(verify_checkpoint(folder + "/one-12").empty());
    for (std::size_t to = 0; to < std::size(kLayouts); ++to)
      run_ranks(kLayouts[to].world(), {}, [&](const Comm& world) {
        Rank rank(toy, kLayouts[to], world, to % 2 ? DType::f32 : DType::bf16);
        EXPECT_EQ(load_checkpoint(rank.context, folder + "/one-12", rank.parts()).iteration, 12);
        EXPECT_EQ(rank.wrong(), 0) << text(kLayouts[i]) << " -> " << text(kLayouts[to]);
        if (to % 3 != i % 3) return;
        Rank weights(toy, kLayouts[to], world, to % 2 ? DType::bf16 : DType::f32);
        load_weights(weights.context, folder + "/one-12", weights.set);
        EXPECT_EQ(weights.wrong_values(), 0) << text(kLayouts[i]) << " -> " << text(kLayouts[to]);
      });
  }
}

// What a rank reads of a checkpoint is its own part, and what else stands in the blocks at that part's edges (a checksum is of a whole block).
TEST_F(Checkpoint, ARankReadsItsPart) {
  ToyConfig toy;
  toy.vocab = 8192, toy.hidden = 256;
  {
    Rank one(toy, {}, Comm());
    one.fill_known();
    EXPECT_EQ(save(one, root, state()), "");
  }
  std::int64_t all = 0;
  const MeshShape shape = {1, 1, 4, 1, 1, 1};
  std::vector<std::int64_t> read(std::size_t(shape.world())), own(read.size());
  run_ranks(shape.world(), {}, [&](const Comm& world) {
    Rank rank(toy, shape, world);
    CheckpointReader reader(root + "/one-12");
    std::vector<CheckpointReader::Want> wants;
    std::vector<float> out(std::size_t(rank.set.numel()));
    std::int64_t n = 0;
    const std::vector<StatePiece> pieces = pieces_of(rank.set, Held::all);
    for (const StatePiece& piece : pieces) {
      wants.push_back({&piece.slab->name, piece.where, out.data() + n, piece.where.cols});
      n += piece.where.numel();
    }
    reader.read(OptimizerState::exp_avg, wants);
    read[std::size_t(world.rank())] = reader.bytes_read(), own[std::size_t(world.rank())] = 4 * n;
    if (world.rank() == 0) all = 4 * reader.manifest().elements();
  });
  for (std::size_t r = 0; r < read.size(); ++r) {
    EXPECT_LT(own[r], all / 3);
    EXPECT_LE(read[r], own[r] + 2 * 2 * 4 * kBlockElements) << r;  // its parts of embedding and head have two edges each
  }
}

// HF -> a checkpoint of 8 ranks (TP 2, PP 2, EP 2) -> HF: the same bytes.
TEST_F(Checkpoint, HuggingFaceThroughALayoutAndBack) {
  const ToyConfig toy;
  Rank whole(toy, {}, Comm());
  whole.fill_known();
  export_hf(root + "/a", whole.config, tensors_of(whole.set, whole.set.values()), {.dtype = "F32"});
  const MeshShape shape = {2, 1, 2, 2, 2, 2};
  run_ranks(shape.world(), {}, [&](const Comm& world) {
    Rank rank(toy, shape, world);
    import_hf(root + "/a", rank.config, rank.set);
    rank.optimizer->reset_master(rank.context);
    EXPECT_EQ(save(rank, root + "/c", state()), "");
  });
  CheckpointReader reader(root + "/c/one-12");
  const auto read = [&](const std::string& name, std::int64_t row, const Tensor& out) { reader.read_rows(OptimizerState::master, name, row, out); };
  export_hf(root + "/b", read_model(root + "/c/one-12"), {reader.dtype(), read}, {.dtype = "F32"});
  EXPECT_EQ(read_file(root + "/a/model.safetensors"), read_file(root + "/b/model.safetensors"));
}

// The state that is saved is that of begin(), whatever the optimizer does meanwhile and however little may be staged.
TEST_F(Checkpoint, TheOptimizerGoesOnWhileItIsSaved) {
  const ToyConfig toy;
  const MeshShape shape = {2, 1, 2, 2, 1, 2};
  for (std::int64_t staging : {std::int64_t(0), std::int64_t(20'000), std::int64_t(1) << 30}) {
    const std::string folder = fmt::format("{}/{}", root, staging);
    run_ranks(shape.world(), {}, [&](const Comm& world) {
      Rank rank(toy, shape, world);
      rank.fill_known();
      CheckpointSaver saver(folder, {.staging_bytes = staging});
      saver.begin(state(), rank.parts(), "");
      std::optional<SaveOutcome> outcome;
      for (int step = 0; step < 3; ++step) {
        fill(rank.context, rank.set.gradients(), 0.25f);
        rank.optimizer->step(rank.context, {}, 0.1);
        if (!outcome) outcome = saver.poll();
      }
      if (!outcome) outcome = saver.finish();
      EXPECT_EQ(outcome->error, "");
      EXPECT_NE(rank.wrong(), 0) << "the steps must have changed what was saved";
    });
    EXPECT_EQ(wrong_in_files(folder + "/one-12", toy), 0) << staging;
  }
}

TEST_F(Checkpoint, DamageIsNamedAndNeverLoaded) {
  const ToyConfig toy;
  const MeshShape shape = {1, 1, 2, 2, 1, 2};
  const std::string whole = root + "/whole", one = root + "/copy/one-12";
  run_ranks(shape.world(), {}, [&](const Comm& world) {
    Rank rank(toy, shape, world);
    rank.fill_known();
    EXPECT_EQ(save(rank, whole, state()), "");
  });
  const auto damaged_by = [&](const std::function<void()>& harm) {
    fs::remove_all(root + "/copy");
    fs::copy(whole, root + "/copy", fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    harm();
    const std::vector<std::string> errors = verify_checkpoint(one);
    EXPECT_FALSE(errors.empty());
    run_ranks(shape.world(), {}, [&](const Comm& world) {
      Rank rank(toy, shape, world);
      EXPECT_THROW(load_checkpoint(rank.context, one, rank.parts()), DamagedCheckpoint);
    });
    return errors.empty() ? "" : errors[0];
  };
  const auto flip = [&](const std::string& file, std::int64_t at) {
    std::string bytes = read_file(one + "/" + file);
    bytes[std::size_t(at < 0 ? std::int64_t(bytes.size()) + at : at)] ^= 4;
    write_file(one + "/" + file, bytes);
  };
  const ShardInfo info = read_manifest(whole + "/one-12").shards[2].info;
  const std::string shard = "shard-00002.h5";
  const std::string flipped = damaged_by([&] { flip(shard, info.data_offset + info.elements * 4 + 8); });
  EXPECT_NE(flipped.find(shard + ": exp_avg of "), std::string::npos) << flipped;
  for (std::int64_t at : {std::int64_t(0), std::int64_t(200), info.data_offset - 5}) {
    const std::string message = damaged_by([&] { flip(shard, at); });
    EXPECT_NE(message.find(shard), std::string::npos) << message;
  }
  EXPECT_NE(damaged_by([&] { fs::resize_file(one + "/" + shard, std::uintmax_t(info.bytes - 1)); }).find("the manifest says"), std::string::npos);
  EXPECT_NE(damaged_by([&] { fs::remove(one + "/" + shard); }).find("is missing"), std::string::npos);
  EXPECT_NE(damaged_by([&] { fs::copy_file(one + "/shard-00001.h5", one + "/" + shard, fs::copy_options::overwrite_existing); }).find(shard), std::string::npos);
  EXPECT_NE(damaged_by([&] { flip("state.json", 30); }).find("state.json"), std::string::npos);
  for (const std::string file : {"state.json", "manifest.json"}) {
    const auto unreadable = [&] {  // as on a disk that gives an error
      fs::remove(one + "/" + file);
      fs::create_directory(one + "/" + file);
    };
    EXPECT_NE(damaged_by(unreadable).find(file + ": cannot read it"), std::string::npos);
    EXPECT_NE(damaged_by([&] { fs::remove(one + "/" + file); }).find(file + ": is missing"), std::string::npos);
  }
  for (std::int64_t at : {std::int64_t(3), std::int64_t(300), std::int64_t(-4), std::int64_t(-100)})
    EXPECT_NE(damaged_by([&] { flip("manifest.json", at); }).find("manifest.json"), std::string::npos);
}

TEST_F(Checkpoint, OldOnesGoWhenTheNewOneIsThere) {
  const ToyConfig toy;
  Rank rank(toy, {}, Comm());
  CheckpointSaver saver(root, {.keep = 2, .keep_every = 30});
  TrainingState s = state();
  for (s.iteration = 10; s.iteration <= 70; s.iteration += 10) {
    s.stage_finished = s.iteration == 20;
    saver.begin(s, rank.parts(), "");
    EXPECT_EQ(saver.finish()->error, "");
  }
  std::vector<std::string> names;
  for (const std::string& path : checkpoints_in(root)) names.push_back(fs::path(path).filename());
  EXPECT_EQ(names, (std::vector<std::string>{"one-70", "one-60", "one-50", "one-30", "one-20"}));
  // The same once more, in the place of the old one; what a killed save left is removed.
  fs::create_directories(root + "/one-80.tmp");
  EXPECT_EQ(save(rank, root, [&] { s.iteration = 70; return s; }()), "");
  EXPECT_FALSE(fs::exists(root + "/one-80.tmp"));
  EXPECT_FALSE(fs::exists(root + "/one-70.tmp"));
  EXPECT_EQ(latest_checkpoint(root), root + "/one-70");
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

// What is asked of a disk beforehand is what is written, and little more.
TEST_F(Checkpoint, AShardTakesTheRoomThatWasAskedFor) {
  EXPECT_EQ(most_shard_bytes({}, DType::f32, 3), 0);
  fs::create_directories(root);
  for (const int tensors : {1, 5, 700}) {
    ShardTable table;
    for (int i = 0; i < tensors; ++i)
      for (std::int64_t row : {0, 7}) table.add(fmt::format("model.layers.{}.mlp.experts.gate_up_proj.weight", i), {{20, 30}}, {row, 2, 0, 30});
    const std::string path = fmt::format("{}/{}.h5", root, tensors);
    ShardWriter writer(path, DType::f32, 3, table);
    const std::vector<float> values(std::size_t(table.elements));
    for (int s = 0; s < 3; ++s) writer.append(s, values.data(), table.elements);
    const std::int64_t bytes = writer.finish().bytes, asked = most_shard_bytes(table, DType::f32, 3);
    EXPECT_EQ(bytes, std::int64_t(fs::file_size(path)));
    EXPECT_LE(bytes, asked);
    EXPECT_GE(bytes, asked - (1 << 16));
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
  const auto save_all = [&](Rank& rank) {
    if (const std::string error = save(rank, root, state()); !error.empty()) throw UserError(error);
  };
  EXPECT_EQ(messages_of(save_all), "");

  // A disk that is full after 50 of some 130 kilobytes; in a process of its own. What is there stays.
  const auto save_to_a_full_disk = [&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit full = {20'000, 20'000};
    setrlimit(RLIMIT_FSIZE, &full);
    const std::string message = messages_of([&](Rank& rank) {
      TrainingState later = state();
      later.iteration = 13;
      if (const std::string error = save(rank, root, later); !error.empty()) throw UserError(error);
    });
    const bool good = message.find("shard-") != std::string::npos && !fs::exists(root + "/one-13.tmp") && !fs::exists(root + "/one-13") &&
                      latest_checkpoint(root) == root + "/one-12" && !testing::Test::HasFailure();
    if (!good) fmt::print(stderr, "{}\n", message);
    std::_Exit(good ? 7 : 8);
  };
  EXPECT_EXIT(save_to_a_full_disk(), testing::ExitedWithCode(7), "");

  // Fewer layers than the model has.
  {
    ToyConfig shorter;
    shorter.layers = 3;
    Rank rank(shorter, {}, Comm());
    EXPECT_EQ(save(rank, root, state()), "");
  }
  const auto load = [&](Rank& rank) { load_checkpoint(rank.context, root + "/one-12", rank.parts()); };
  EXPECT_NE(messages_of(load).find("3 layers, the model has 4"), std::string::npos) << messages_of(load);
  fs::remove(root + "/one-12/manifest.json");
  EXPECT_NE(messages_of(load).find("manifest.json: is missing"), std::string::npos);
}

}  // namespace
}  // namespace af::test
