#include "launch/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <functional>

#include <fmt/format.h>

#include "data/file.h"
#include "data/json.h"
#include "launch/checkpoint_tensors.h"
#include "launch/hf_config.h"
#include "parallel/data_parallel.h"
#include "parallel/together.h"

namespace af {
namespace {

namespace fs = std::filesystem;
// Every layer's counts on every rank: a rank knows those of its own stage's layers, all ranks that know a layer's know the same.
std::vector<std::vector<std::int64_t>> all_expert_counts(const CheckpointParts& parts) {
  const std::int64_t layers = parts.model.num_hidden_layers, experts = std::max<std::int64_t>(parts.model.num_experts, 1);
  AF_CHECK(std::int64_t(parts.router.size()) == layers, "router statistics of {} layers for {}", parts.router.size(), layers);
  std::vector<std::int64_t> flat(std::size_t(layers * experts));
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::vector<std::int64_t>& counts = parts.router[std::size_t(i)].previous_counts;
    std::copy(counts.begin(), counts.end(), flat.begin() + i * experts);
  }
  parts.mesh.world.all_reduce(Tensor(flat.data(), DType::i64, {layers * experts}), Reduction::max).wait();
  std::vector<std::vector<std::int64_t>> all;
  for (std::int64_t i = 0; i < layers; ++i) {
    const auto begin = flat.begin() + i * experts;
    all.emplace_back(begin, begin + (parts.model.is_moe_layer(i) ? experts : 0));
  }
  return all;
}

Json to_json(const TrainingState& state, std::int64_t optimizer_steps, const std::vector<std::vector<std::int64_t>>& expert_counts) {
  Json j;
  j.set("format", "af_checkpoint");
  j.set("version", 1);
  j.set("stage", state.stage);
  j.set("stage_name", state.stage_name);
  j.set("stage_iteration", state.stage_iteration);
  j.set("stage_finished", state.stage_finished);
  j.set("iteration", state.iteration);
  j.set("consumed_samples", state.consumed_samples);
  j.set("consumed_tokens", state.consumed_tokens);
  j.set("skipped", state.skipped);
  j.set("optimizer_steps", optimizer_steps);
  j.set("tokenizer_sha256", state.tokenizer_sha256);
  j.set("datasets", state.datasets);
  j.set("data", af::to_json(state.stream));
  Json layers = Json::Array{};
  for (const std::vector<std::int64_t>& layer : expert_counts) {
    Json counts = Json::Array{};
    for (std::int64_t n : layer) counts.push_back(n);
    layers.push_back(counts);
  }
  j.set("previous_expert_counts", layers);
  return j;
}

TrainingState state_of(const JsonView& j) {
  if (!j.has("format") || j["format"].string() != "af_checkpoint" || j["version"].integer() != 1)
    user_error("{}: not a checkpoint of this program (format af_checkpoint, version 1)", j.where());
  TrainingState state;
  state.stage = j["stage"].integer();
  state.stage_name = j["stage_name"].string();
  state.stage_iteration = j["stage_iteration"].integer();
  state.stage_finished = j["stage_finished"].boolean();
  state.iteration = j["iteration"].integer();
  state.consumed_samples = j["consumed_samples"].integer();
  state.consumed_tokens = j["consumed_tokens"].integer();
  state.skipped = j["skipped"].integer();
  state.tokenizer_sha256 = j["tokenizer_sha256"].string();
  state.datasets = j["datasets"].value();
  state.stream = stream_state_from(j["data"]);
  return state;
}

std::string state_path(const std::string& path) { return path + "/state.json"; }

// Where `link` says the newest checkpoint is, replaced in one step.
void point_latest(const std::string& root, const std::string& name) {
  std::string aside = root + "/latest.tmp";
  fs::remove(aside);
  fs::create_symlink(name, aside);
  fs::rename(aside, root + "/latest");
}

void remove_old(const std::string& root, std::int64_t keep) {
  if (keep <= 0) return;
  std::vector<std::pair<std::int64_t, fs::path>> ordinary;
  for (const fs::directory_entry& entry : fs::directory_iterator(root)) {
    if (entry.is_symlink() || !fs::exists(entry.path() / "state.json") || entry.path().extension() == ".tmp") continue;
    TrainingState state = read_state(entry.path().string());
    if (!state.stage_finished) ordinary.emplace_back(state.iteration, entry.path());
  }
  std::sort(ordinary.begin(), ordinary.end());
  for (std::int64_t i = 0; i + keep < std::int64_t(ordinary.size()); ++i) fs::remove_all(ordinary[std::size_t(i)].second);
}

}  // namespace

std::string save_checkpoint(const std::string& root, const TrainingState& state, const CheckpointParts& parts, const std::string& run_yaml,
                            std::int64_t keep) {
  const Comm& world = parts.mesh.world;
  const auto on_rank_0 = [&](const std::function<void()>& work) {
    together(world, [&] {
      if (world.rank() == 0) work();
    });
  };
  std::string name = fmt::format("{}-{}", state.stage_name, state.iteration), path = root + "/" + name, aside = path + ".tmp";
  on_rank_0([&] {
    fs::create_directories(root);
    fs::remove_all(aside);
    fs::create_directories(aside);
  });
  write_tensors(aside + "/tensors.h5", parts.model, parts.parameters, parts.optimizer, world);
  const std::vector<std::vector<std::int64_t>> expert_counts = all_expert_counts(parts);
  on_rank_0([&] {
    write_file(aside + "/config.json", write_hf_config(parts.model, name_of(accumulator_of(parts.parameters.dtype()))).dump(2) + "\n");
    write_file(aside + "/run.yaml", run_yaml);
    write_file(state_path(aside), to_json(state, parts.optimizer.steps(), expert_counts).dump(2) + "\n");
    sync_folder(aside);
    fs::remove_all(path);
    fs::rename(aside, path);
    point_latest(root, name);
    sync_folder(root);
    remove_old(root, keep);
  });
  return path;
}

namespace {

// What a rank reads by itself.
TrainingState read_checkpoint(const std::string& path, const CheckpointParts& parts) {
  TrainingState state = read_state(path);
  Json json = Json::parse_file(state_path(path));
  JsonView j(json, state_path(path));
  read_tensors(path + "/tensors.h5", parts.parameters, parts.optimizer);
  parts.optimizer.set_steps(j["optimizer_steps"].integer());
  JsonView layers = j["previous_expert_counts"];
  if (layers.size() != parts.router.size()) user_error("{}: {} layers, the model has {}", state_path(path), layers.size(), parts.router.size());
  for (std::size_t i = 0; i < parts.router.size(); ++i) {
    std::vector<std::int64_t>& counts = parts.router[i].previous_counts;
    const std::size_t experts = parts.model.is_moe_layer(std::int64_t(i)) ? std::size_t(parts.model.num_experts) : 0;
    if (layers[i].size() != experts) user_error("{}: {} experts, the model has {}", layers[i].where(), layers[i].size(), experts);
    for (std::size_t e = 0; e < counts.size(); ++e) counts[e] = layers[i][e].integer();
  }
  return state;
}

}  // namespace

TrainingState load_checkpoint(const Context& context, const std::string& path, const CheckpointParts& parts) {
  TrainingState state;
  together(parts.mesh.world, [&] { state = read_checkpoint(path, parts); });
  parts.optimizer.values_from_master(context);
  ParameterGatherer(parts.mesh, parts.parameters, false).start();
  return state;
}

void load_weights(const Context& context, const std::string& path, ParameterSet& set) { read_values(context, path + "/tensors.h5", set); }

TrainingState read_state(const std::string& path) {
  if (!fs::exists(state_path(path))) user_error("{}: no checkpoint here (state.json is missing)", path);
  Json json = Json::parse_file(state_path(path));
  return state_of(JsonView(json, state_path(path)));
}

ModelConfig read_model(const std::string& path) { return read_hf_config(path + "/config.json"); }

std::string latest_checkpoint(const std::string& root) {
  std::error_code error;
  fs::path target = fs::read_symlink(root + "/latest", error);
  if (error) return "";
  return (fs::path(root) / target).string();
}

}  // namespace af
