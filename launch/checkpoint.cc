#include "launch/checkpoint.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "core/ops/elementwise.h"
#include "data/file.h"
#include "data/hdf5_file.h"
#include "data/json.h"
#include "launch/hf_config.h"

namespace af {
namespace {

namespace fs = std::filesystem;
constexpr const char* kGroups[] = {"master", "exp_avg", "exp_avg_sq"};

H5Type h5_type(DType dtype) { return dtype == DType::f64 ? H5Type::f64 : H5Type::f32; }

std::vector<std::int64_t> dims_of(const Shape& shape) { return {shape.dims, shape.dims + shape.rank}; }

// The flat tensor's part that belongs to a parameter.
Tensor part_of(const Tensor& flat, const ParameterSet& set, const Parameter& p) {
  std::int64_t begin = set.begin_of(p);
  return flat.slice_rows(begin, begin + p.numel());
}

void write_tensors(const std::string& path, const CheckpointParts& parts) {
  H5File file = H5File::create(path);
  const Tensor* flats[] = {&parts.optimizer.master(), &parts.optimizer.exp_avg(), &parts.optimizer.exp_avg_sq()};
  for (int g = 0; g < 3; ++g) {
    file.create_group(kGroups[g]);
    for (const Parameter& p : parts.parameters.parameters())
      for (const Slab& slab : p.slabs) {
        H5Type type = h5_type(flats[g]->dtype);
        H5Dataset dataset = file.create_dataset(fmt::format("{}/{}", kGroups[g], slab.name), type, dims_of(slab.global_shape));
        std::vector<std::int64_t> zero(std::size_t(slab.global_shape.rank), 0);
        dataset.write(zero, dataset.shape(), type, slab_view(slab, part_of(*flats[g], parts.parameters, p)).data);
      }
  }
  file.close();
}

void read_group(const H5File& file, const std::string& group, const ParameterSet& set, const Tensor& flat) {
  for (const Parameter& p : set.parameters())
    for (const Slab& slab : p.slabs) {
      std::string name = fmt::format("{}/{}", group, slab.name);
      if (!file.has(name)) user_error("{}: tensor {} is missing; this checkpoint belongs to another model", file.path(), name);
      H5Dataset dataset = file.dataset(name);
      if (dataset.shape() != dims_of(slab.global_shape))
        user_error("{}: tensor {} is {}, the model's is {}; this checkpoint belongs to another model", file.path(), name,
                   fmt::format("[{}]", fmt::join(dataset.shape(), ", ")), slab.global_shape.str());
      if (dataset.type() != h5_type(flat.dtype))
        user_error("{}: tensor {} is {}, this run computes in {}; resume with the same runtime.precision", file.path(), name, name_of(dataset.type()),
                   name_of(flat.dtype));
      std::vector<std::int64_t> zero(std::size_t(slab.global_shape.rank), 0);
      dataset.read(zero, dataset.shape(), h5_type(flat.dtype), slab_view(slab, part_of(flat, set, p)).data);
    }
}

Json to_json(const TrainingState& state, const CheckpointParts& parts) {
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
  j.set("optimizer_steps", parts.optimizer.steps());
  j.set("tokenizer_sha256", state.tokenizer_sha256);
  j.set("datasets", state.datasets);
  j.set("data", af::to_json(state.stream));
  Json layers = Json::Array{};
  for (const RouterStatistics& layer : parts.router) {
    Json counts = Json::Array{};
    for (std::int64_t n : layer.previous_counts) counts.push_back(n);
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
  std::string name = fmt::format("{}-{}", state.stage_name, state.iteration), path = root + "/" + name, aside = path + ".tmp";
  fs::create_directories(root);
  fs::remove_all(aside);
  fs::create_directories(aside);
  write_tensors(aside + "/tensors.h5", parts);
  write_file(aside + "/config.json", write_hf_config(parts.model, name_of(accumulator_of(parts.parameters.dtype()))).dump(2) + "\n");
  write_file(aside + "/run.yaml", run_yaml);
  write_file(state_path(aside), to_json(state, parts).dump(2) + "\n");
  sync_folder(aside);
  fs::remove_all(path);
  fs::rename(aside, path);
  point_latest(root, name);
  sync_folder(root);
  remove_old(root, keep);
  return path;
}

TrainingState load_checkpoint(const Context& context, const std::string& path, const CheckpointParts& parts) {
  TrainingState state = read_state(path);
  Json json = Json::parse_file(state_path(path));
  JsonView j(json, state_path(path));
  H5File file = H5File::open(path + "/tensors.h5");
  read_group(file, kGroups[0], parts.parameters, parts.optimizer.master());
  read_group(file, kGroups[1], parts.parameters, parts.optimizer.exp_avg());
  read_group(file, kGroups[2], parts.parameters, parts.optimizer.exp_avg_sq());
  if (parts.optimizer.master().data != parts.parameters.values().data) convert(context, parts.optimizer.master(), parts.parameters.values());
  parts.optimizer.set_steps(j["optimizer_steps"].integer());
  JsonView layers = j["previous_expert_counts"];
  if (layers.size() != parts.router.size()) user_error("{}: {} layers, the model has {}", state_path(path), layers.size(), parts.router.size());
  for (std::size_t i = 0; i < parts.router.size(); ++i) {
    std::vector<std::int64_t>& counts = parts.router[i].previous_counts;
    if (layers[i].size() != counts.size()) user_error("{}: {} experts, the model has {}", layers[i].where(), layers[i].size(), counts.size());
    for (std::size_t e = 0; e < counts.size(); ++e) counts[e] = layers[i][e].integer();
  }
  return state;
}

void load_weights(const Context& context, const std::string& path, ParameterSet& set) {
  H5File file = H5File::open(path + "/tensors.h5");
  DType accumulator = accumulator_of(set.dtype());
  if (set.dtype() == accumulator) {
    read_group(file, kGroups[0], set, set.values());
    return;
  }
  Buffer buffer(context.device, std::size_t(set.values().numel()) * size_of(accumulator));
  Tensor master(buffer.data(), accumulator, set.values().shape);
  fill(context, master, 0);
  read_group(file, kGroups[0], set, master);
  convert(context, master, set.values());
}

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
