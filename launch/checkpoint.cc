#include "launch/checkpoint.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "core/ops/elementwise.h"
#include "data/json.h"
#include "launch/checkpoint_reader.h"
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
  j.set("version", 2);
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
  Json losses = Json::Array{}, spikes = Json::Array{};
  for (double loss : state.recent_losses) losses.push_back(loss);
  for (const LossSpike& spike : state.spikes) spikes.push_back(af::to_json(spike));
  if (!state.recent_losses.empty()) j.set("recent_losses", losses);
  if (!state.spikes.empty()) j.set("loss_spikes", spikes);
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
  if (!j.has("format") || j["format"].string() != "af_checkpoint" || j["version"].integer() != 2)
    user_error("{}: not a checkpoint of this program (format af_checkpoint, version 2)", j.where());
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
  const auto size_of = [&](const char* key) { return j.has(key) ? j[key].size() : 0; };
  for (std::size_t i = 0; i < size_of("recent_losses"); ++i) state.recent_losses.push_back(j["recent_losses"][i].number());
  for (std::size_t i = 0; i < size_of("loss_spikes"); ++i) state.spikes.push_back(loss_spike_from(j["loss_spikes"][i]));
  return state;
}

void check_type(const CheckpointReader& reader, DType dtype) {
  if (reader.dtype() != dtype)
    user_error("{}: holds {}, this run keeps {}; runs in fp32 and bf16 go on from each other's checkpoints, those in fp64 from their own (runtime.precision)",
               reader.path(), name_of(reader.dtype()), name_of(dtype));
}

void check_shape(const CheckpointReader& reader, const Slab& slab) {
  if (const Shape& theirs = reader.shape(slab.name); !(theirs == slab.global_shape))
    user_error("{}: tensor {} is {}, the model's is {}; this checkpoint belongs to another model", reader.path(), slab.name, theirs.str(),
               slab.global_shape.str());
}

// The file of a checkpoint, with its path for messages.
Json read_json(const CheckpointReader& reader, const char* name) { return Json::parse(reader.file(name), reader.path() + "/" + name); }

TrainingState read_checkpoint(const std::string& path, const CheckpointParts& parts) {
  CheckpointReader reader(path);
  for (const CheckpointManifest::File& file : reader.manifest().files) reader.file(file.name);  // some are for people and tools; damage is damage
  const Json json = read_json(reader, "state.json");
  const JsonView j(json, path + "/state.json");
  TrainingState state = state_of(j);
  const DType dtype = accumulator_of(parts.parameters.dtype());
  check_type(reader, dtype);
  const std::vector<StatePiece> pieces = pieces_of(parts.parameters, Held::all);
  for (const StatePiece& piece : pieces) check_shape(reader, *piece.slab);
  std::vector<CheckpointReader::Want> wants(pieces.size());
  for (int s = 0; s < 3; ++s) {
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const StatePiece& piece = pieces[i];
      char* out = static_cast<char*>(parts.optimizer.state(OptimizerState(s), piece.bucket).data) + std::size_t(piece.offset) * size_of(dtype);
      wants[i] = {&piece.slab->name, piece.where, out, piece.where.cols};
    }
    reader.read(OptimizerState(s), wants);
  }
  parts.optimizer.set_steps(j["optimizer_steps"].integer());
  const JsonView layers = j["previous_expert_counts"];
  if (layers.size() != parts.router.size()) user_error("{}: {} layers, the model has {}", j.where(), layers.size(), parts.router.size());
  for (std::size_t i = 0; i < parts.router.size(); ++i) {
    std::vector<std::int64_t>& counts = parts.router[i].previous_counts;
    const std::size_t experts = parts.model.is_moe_layer(std::int64_t(i)) ? std::size_t(parts.model.num_experts) : 0;
    if (layers[i].size() != experts) user_error("{}: {} experts, the model has {}", layers[i].where(), layers[i].size(), experts);
    for (std::size_t e = 0; e < counts.size(); ++e) counts[e] = layers[i][e].integer();
  }
  return state;
}

}  // namespace

void together_or_damaged(const Comm& world, const std::function<void()>& work) {
  std::int64_t is_damaged = 0;
  try {
    together(world, [&] {
      try {
        work();
      } catch (const DamagedCheckpoint&) {
        is_damaged = 1;
        throw;
      }
    });
  } catch (const UserError& error) {
    world.all_reduce(Tensor(&is_damaged, DType::i64, {1}), Reduction::max).wait();
    if (is_damaged) throw DamagedCheckpoint(error.what());
    throw;
  }
}

std::string state_text(const TrainingState& state, const CheckpointParts& parts) {
  return to_json(state, parts.optimizer.steps(), all_expert_counts(parts)).dump(2) + "\n";
}

TrainingState load_checkpoint(const Context& context, const std::string& path, const CheckpointParts& parts) {
  TrainingState state;
  together_or_damaged(parts.mesh.world, [&] { state = read_checkpoint(path, parts); });
  parts.optimizer.values_from_master(context);
  ParameterGatherer(parts.mesh, parts.parameters, false).start();
  return state;
}

void load_weights(const Context& context, const std::string& path, ParameterSet& set) {
  CheckpointReader reader(path);
  const DType dtype = accumulator_of(set.dtype());
  check_type(reader, dtype);
  std::vector<char> buffer;
  for (const Parameter& p : set.parameters())
    for (const Slab& slab : p.slabs) {
      check_shape(reader, slab);
      const Tensor values = slab_view(slab, p.value);
      const std::int64_t step = std::max<std::int64_t>(1, (std::int64_t(1) << 20) / slab.cols);
      for (std::int64_t row = 0; row < slab.rows; row += step) {
        const std::int64_t rows = std::min(step, slab.rows - row);
        const Tensor out = values.slice_rows(row, row + rows);
        const bool direct = dtype == set.dtype();
        if (!direct) buffer.resize(std::size_t(rows * slab.cols) * size_of(dtype));
        const CheckpointReader::Want want{&slab.name, {slab.row_begin + row, rows, slab.col_begin, slab.cols}, direct ? out.data : buffer.data(), slab.cols};
        reader.read(OptimizerState::master, {&want, 1});
        if (!direct) convert(context, Tensor(buffer.data(), dtype, {rows, slab.cols}), out);
      }
    }
}

TrainingState read_state(const std::string& path) {
  const std::string where = path + "/state.json";
  const Json json = Json::parse(read_listed_file(path, read_manifest(path), "state.json"), where);
  return state_of(JsonView(json, where));
}

ModelConfig read_model(const std::string& path) {
  read_listed_file(path, read_manifest(path), "config.json");
  return read_hf_config(path + "/config.json");
}

std::int64_t iteration_of(const std::string& path) {
  const std::string name = fs::path(path).filename().string();
  const std::size_t dash = name.rfind('-');
  if (dash == name.npos || dash + 1 == name.size() || name.size() - dash > 18 || name.find_first_not_of("0123456789", dash + 1) != name.npos) return -1;
  return std::stoll(name.substr(dash + 1));
}

std::vector<std::string> checkpoints_in(const std::string& root) {
  std::vector<std::pair<std::int64_t, std::string>> found;
  std::error_code none;
  for (const fs::directory_entry& entry : fs::directory_iterator(root, none))
    if (const std::string path = entry.path().string(); iteration_of(path) >= 0 && holds_checkpoint(path)) found.emplace_back(iteration_of(path), path);
  std::sort(found.rbegin(), found.rend());
  std::vector<std::string> paths;
  for (auto& [iteration, path] : found) paths.push_back(std::move(path));
  return paths;
}

std::string checkpoint_folder(const std::string& path) {
  fs::path itself = fs::path(path).lexically_normal();
  if (!itself.has_filename()) itself = itself.parent_path();  // "latest/"
  if (fs::is_symlink(itself)) itself = itself.parent_path() / fs::read_symlink(itself);  // by its own name: what latest points to changes
  if (holds_checkpoint(itself.string())) return itself.string();
  for (const char* below : {"", "/checkpoints"}) {
    if (std::string latest = latest_checkpoint(path + below); !latest.empty()) return latest;
    if (const std::vector<std::string> all = checkpoints_in(path + below); !all.empty()) return all.front();
  }
  user_error("{}: is no checkpoint of af_train (there is no {}/{}), nor a folder of them", path, path, kManifestFile);
}

std::string stage_finished_text(const TrainingState& state) {
  Json j;
  j.set("stage", state.stage_name);
  j.set("iteration", state.iteration);
  j.set("consumed_tokens", state.consumed_tokens);
  return j.dump() + "\n";
}

std::string latest_checkpoint(const std::string& root) {
  std::error_code error;
  const fs::path link = fs::path(root) / "latest", target = fs::read_symlink(link, error), path = error ? link : root / target;
  return holds_checkpoint(path.string()) ? path.string() : "";
}

}  // namespace af
