// af_checkpoint: between Hugging Face folders and this program's checkpoints, and what is in them.
#include <filesystem>
#include <map>
#include <memory>

#include "core/error.h"
#include "data/file.h"
#include "data/hdf5_file.h"
#include "data/safetensors.h"
#include "launch/arguments.h"
#include "launch/checkpoint.h"
#include "launch/config_yaml.h"
#include "launch/hf_checkpoint.h"
#include "launch/hf_config.h"
#include "models/qwen3.h"

namespace af {
namespace {

namespace fs = std::filesystem;

// "5GB", "200MB", "60KB" (powers of ten, as transformers counts) or bytes.
std::int64_t parse_size(const std::string& text) {
  const std::pair<const char*, std::int64_t> units[] = {{"KB", 1000}, {"MB", 1'000'000}, {"GB", 1'000'000'000}, {"", 1}};
  for (const auto& [unit, factor] : units) {
    if (!text.ends_with(unit)) continue;
    const std::string digits = text.substr(0, text.size() - std::string_view(unit).size());
    if (!digits.empty() && digits.size() < 10 && digits.find_first_not_of("0123456789") == digits.npos && std::stoll(digits) > 0) {
      return std::stoll(digits) * factor;
    }
  }
  user_error("--max-shard-size: \"{}\" is no size; write 5GB, 200MB, 60KB or a number of bytes", text);
}

// A folder of save_checkpoint, or the root that holds `latest`.
std::string checkpoint_folder(const std::string& path) {
  if (fs::exists(fs::path(path) / "state.json")) return path;
  const std::string latest = latest_checkpoint(path);
  if (latest.empty()) user_error("{}: is no checkpoint of af_train (a folder with state.json), nor a folder of them with `latest`", path);
  return latest;
}

// The tensors of a checkpoint, read from the file as they are asked for.
TensorSource weights_of(const std::string& checkpoint, const ModelConfig& config) {
  const auto file = std::make_shared<const H5File>(H5File::open(checkpoint + "/tensors.h5"));
  const H5Type type = file->dataset("master/" + published_tensors(config)[0].name).type();
  const auto read = [file, type](const std::string& name, std::int64_t row_begin, const Tensor& out) {
    const H5Dataset dataset = file->dataset("master/" + name);
    std::vector<std::int64_t> begin(dataset.shape().size(), 0), count = dataset.shape();
    begin[0] = row_begin;
    count[0] = out.rows();
    std::int64_t elements = 1;
    for (const std::int64_t n : count) elements *= n;
    if (elements != out.numel()) user_error("{}: has other dimensions than config.json says", dataset.where());
    dataset.read(begin, count, type, out.data);
  };
  return {type == H5Type::f64 ? DType::f64 : DType::f32, read};
}

constexpr char kSourceFile[] = "/hf_source";  // in an imported checkpoint: the folder it came from

struct Origin {
  std::string weights;    // the Hugging Face folder from which the checkpoint, or the run that wrote it, took its weights
  std::string tokenizer;  // the run's tokenizer.path
};

// "" for what is not there.
Origin origin_of(const std::string& checkpoint) {
  Origin origin;
  if (fs::exists(checkpoint + kSourceFile)) {
    origin.weights = read_file(checkpoint + kSourceFile);
  } else if (fs::exists(checkpoint + "/run.yaml")) {
    const Config config = read_config(checkpoint + "/run.yaml", {});
    if (config.init.from == InitConfig::From::checkpoint && fs::is_directory(config.init.path)) origin = origin_of(config.init.path);
    if (config.init.from == InitConfig::From::hf_checkpoint) origin.weights = config.init.path;
    if (fs::exists(config.tokenizer.path)) origin.tokenizer = config.tokenizer.path;
  }
  if (!fs::is_directory(origin.weights)) origin.weights.clear();
  return origin;
}

int import_command(const Arguments& arguments) {
  const std::string &folder = arguments.positionals()[0], &root = arguments.positionals()[1];
  const ModelConfig config = read_hf_config(folder);
  const Device device;
  ParameterSet parameters(device, DType::f32);
  Qwen3Model model(config, device, parameters);
  parameters.allocate();
  import_hf(folder, config, parameters);
  Optimizer optimizer(device, parameters);
  TrainingState state;
  state.stage_name = "import";
  const std::string path = save_checkpoint(root, state, {config, parameters, optimizer, model.router_statistics()}, "", 0);
  write_file(path + kSourceFile, fs::absolute(folder).string());
  fmt::print("{}: {} parameters of {}, with a fresh optimizer\n", path, parameters.numel(), folder);
  fmt::print("next: train from it with  init: {{checkpoint: {}}}\n", path);
  return kExitDone;
}

int export_command(const Arguments& arguments) {
  const std::string checkpoint = checkpoint_folder(arguments.positionals()[0]), &out = arguments.positionals()[1];
  const std::map<std::string, std::string> types = {{"", ""}, {"bfloat16", "BF16"}, {"float16", "F16"}, {"float32", "F32"}};
  HfExport options;
  const Origin origin = arguments.has("--source") ? Origin{arguments.value("--source"), ""} : origin_of(checkpoint);
  options.source = origin.weights;
  options.tokenizer = origin.tokenizer;
  options.dtype = types.at(arguments.value("--dtype"));
  options.max_shard_size = parse_size(arguments.value("--max-shard-size", "5GB"));
  const ModelConfig config = read_model(checkpoint);
  export_hf(out, config, weights_of(checkpoint, config), options);
  fmt::print("{}: {} in Hugging Face's format\n", out, checkpoint);
  const std::string& tokenizer = options.tokenizer.empty() ? options.source : options.tokenizer;
  fmt::print("tokenizer files: {}\n", tokenizer.empty() ? "none; --source FOLDER copies them from there" : "those of " + tokenizer);
  fmt::print("generation_config.json: {}\n", options.source.empty() ? "none; --source FOLDER copies it from there" : "that of " + options.source + ", if any");
  return kExitDone;
}

void print_tensors(const SafetensorsFile& file) {
  for (const SafetensorsInfo& info : file.tensors()) fmt::print("{:<60} {:<5} {}\n", info.name, info.dtype, info.shape_text());
  fmt::print("{} tensors\n", file.tensors().size());
}

void print_model(const ModelConfig& c) {
  std::int64_t parameters = 0;
  for (const PublishedTensor& tensor : published_tensors(c)) parameters += tensor.shape.numel();
  fmt::print("model               {}, {} layers, hidden_size {}, {} query and {} key heads of {}\n", c.model_type, c.num_hidden_layers, c.hidden_size,
             c.num_attention_heads, c.num_key_value_heads, c.head_dim);
  if (c.num_experts > 0)
    fmt::print("experts             {} of {} per token, width {}\n", c.num_experts_per_tok, c.num_experts, c.moe_intermediate_size);
  fmt::print("vocabulary          {}{}\n", c.vocab_size, c.tie_word_embeddings ? ", head tied to the embedding" : "");
  fmt::print("positions           {}, rope_theta {}{}\n", c.max_position_embeddings, c.rope.theta,
             c.rope.yarn ? fmt::format(", YaRN factor {} from {}", c.rope.yarn->factor, c.rope.yarn->original_max_position_embeddings) : "");
  fmt::print("parameters          {}\n", parameters);
}

int inspect_command(const Arguments& arguments) {
  const std::string& path = arguments.positionals()[0];
  if (path.ends_with(".safetensors")) {
    print_tensors(SafetensorsFile(path));
  } else if (fs::exists(fs::path(path) / "config.json") && !fs::exists(fs::path(path) / "state.json")) {
    print_model(read_hf_config(path));
    const SafetensorsFolder folder(path);
    std::map<std::string, std::pair<std::int64_t, std::int64_t>> types;  // tensors, bytes
    for (const auto& [name, entry] : folder.tensors()) {
      types[entry.info->dtype].first++;
      types[entry.info->dtype].second += entry.info->bytes();
    }
    for (const auto& [type, sum] : types) fmt::print("{:<19} {} tensors, {} bytes\n", type, sum.first, sum.second);
  } else {
    const std::string checkpoint = checkpoint_folder(path);
    const TrainingState state = read_state(checkpoint);
    fmt::print("checkpoint          {}\n", checkpoint);
    fmt::print("stage               {} ({} iterations in it{})\n", state.stage_name, state.stage_iteration, state.stage_finished ? ", finished" : "");
    fmt::print("iteration           {}, {} samples, {} tokens consumed, {} steps skipped\n", state.iteration, state.consumed_samples,
               state.consumed_tokens, state.skipped);
    print_model(read_model(checkpoint));
  }
  return kExitDone;
}

Program program() {
  Command import{"import-hf",
                 "a Hugging Face folder becomes a checkpoint of this program, with a fresh optimizer",
                 "HF_FOLDER OUT",
                 2,
                 2,
                 {},
                 {"af_checkpoint import-hf qwen3_30b_a3b/ runs/base"},
                 import_command};
  Command exporter{
      "export-hf",
      "a checkpoint becomes a folder that transformers, vLLM and SGLang load",
      "CHECKPOINT OUT",
      2,
      2,
      {{"--source",
        Takes::one_value,
        "FOLDER",
        "tokenizer files, generation_config.json and tensor types from there (default: where the run took its weights and its tokenizer from)",
        {},
        false},
       {"--dtype", Takes::one_value, "TYPE", "type of all tensors (default: as in --source, or bfloat16)", {"bfloat16", "float16", "float32"}, false},
       {"--max-shard-size", Takes::one_value, "SIZE", "largest file: 5GB, 200MB, ... (default: 5GB)", {}, false}},
      {"af_checkpoint export-hf runs/x/checkpoints/latest out/", "af_checkpoint export-hf runs/base out/ --source qwen3_30b_a3b/ --dtype bfloat16"},
      export_command};
  Command inspect{"inspect",
                  "what is in a checkpoint, a Hugging Face folder or a .safetensors file",
                  "PATH",
                  1,
                  1,
                  {},
                  {"af_checkpoint inspect runs/x/checkpoints/latest"},
                  inspect_command};
  return {"af_checkpoint", "checkpoints: to and from Hugging Face, and what is in them", {import, exporter, inspect}};
}

}  // namespace
}  // namespace af

int main(int argc, char** argv) { return af::run_program(af::program(), argc, argv); }
