// af_checkpoint: between Hugging Face folders and this program's checkpoints, and what is in them.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <map>
#include <memory>

#include <fmt/format.h>

#include "core/error.h"
#include "data/file.h"
#include "data/safetensors.h"
#include "launch/arguments.h"
#include "launch/checkpoint_reader.h"
#include "launch/checkpoint_saver.h"
#include "launch/checkpoint_tools.h"
#include "launch/config_yaml.h"
#include "launch/hf_checkpoint.h"
#include "launch/hf_config.h"
#include "launch/run_lock.h"

namespace af {
namespace {

namespace fs = std::filesystem;

// "5GB", "1.5 GB", "200MB" (powers of ten, as Hugging Face counts), "2GiB" (of two), or bytes.
std::int64_t parse_size(const std::string& text) {
  const std::map<std::string, double> units = {{"", 1},       {"kb", 1e3},       {"mb", 1e6},         {"gb", 1e9},          {"tb", 1e12},
                                               {"kib", 1024}, {"mib", 1048576.}, {"gib", 1073741824.}, {"tib", 1099511627776.}};
  const std::size_t digits = std::min(text.find_first_not_of("0123456789."), text.size()), unit_begin = std::min(text.find_first_not_of(' ', digits), text.size());
  std::string unit = text.substr(unit_begin);
  std::transform(unit.begin(), unit.end(), unit.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + digits, number);
  const bool good = error == std::errc() && end == text.data() + digits && units.contains(unit) && number * units.at(unit) >= 1 && number * units.at(unit) < 1e18;
  if (!good) user_error("--max-shard-size: \"{}\" is no size; write 5GB, 1.5GB, 200MB, 2GiB or a number of bytes", text);
  return std::int64_t(number * units.at(unit));
}

// The tensors of a checkpoint, read from the files as they are asked for.
TensorSource weights_of(const std::string& checkpoint) {
  const auto reader = std::make_shared<CheckpointReader>(checkpoint);
  return {reader->dtype(), [reader](const std::string& name, std::int64_t row_begin, const Tensor& out) {
            if (reader->shape(name).numel() / reader->shape(name)[0] != out.numel() / out.rows())
              user_error("{}: {} has other dimensions than config.json says", reader->path(), name);
            reader->read_rows(OptimizerState::master, name, row_begin, out);
          }};
}

struct Origin {
  std::string weights;    // the Hugging Face folder from which the checkpoint, or the run that wrote it, took its weights
  std::string tokenizer;  // the run's tokenizer.path
};

// "" for what is not there.
Origin origin_of(const std::string& checkpoint) {
  Origin origin;
  if (fs::exists(checkpoint + "/" + kSourceFile)) {
    origin.weights = read_file(checkpoint + "/" + kSourceFile);
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
  const std::string path = import_checkpoint(folder, root);
  fmt::print("{}: the weights of {}\n", path, folder);
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
  export_hf(out, config, weights_of(checkpoint), options);
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

int verify_command(const Arguments& arguments) {
  const std::string checkpoint = checkpoint_folder(arguments.positionals()[0]);
  const std::vector<std::string> errors = verify_checkpoint(checkpoint);
  if (!errors.empty()) throw InternalError(fmt::format("{}", fmt::join(errors, "\n")));
  fmt::print("{}: whole; every byte was read\n", checkpoint);
  return kExitDone;
}

int diff_command(const Arguments& arguments) {
  return diff_checkpoints(checkpoint_folder(arguments.positionals()[0]), checkpoint_folder(arguments.positionals()[1])) ? kExitDone : kExitFailed;
}

int average_command(const Arguments& arguments) {
  std::vector<std::string> from = arguments.positionals();
  const std::string to = from.back();
  from.pop_back();
  for (std::string& path : from) path = checkpoint_folder(path);
  average_checkpoints(from, to);
  fmt::print("{}: the mean of {} checkpoints' weights\n", to, from.size());
  fmt::print("next: train from it with  init: {{checkpoint: {}}}\n", to);
  return kExitDone;
}

int gc_command(const Arguments& arguments) {
  const std::string& root = arguments.positionals()[0];
  if (checkpoints_in(root).empty()) user_error("{}: is no folder of checkpoints: there is none in it", root);
  const std::int64_t keep = arguments.integer("--keep", 0), every = arguments.integer("--keep-every", 0);
  std::optional<RunLock> lock;
  if (const fs::path run = fs::absolute(root).lexically_normal().parent_path(); fs::exists(run / "lock")) lock.emplace(run.string(), [] { return true; });
  for (const std::string& name : remove_old_checkpoints(root, keep, every))
    fmt::print("removed {}/{}\n", root, name);
  return kExitDone;
}

int inspect_command(const Arguments& arguments) {
  const std::string& path = arguments.positionals()[0];
  if (path.ends_with(".safetensors")) {
    print_tensors(SafetensorsFile(path));
  } else if (fs::exists(fs::path(path) / "config.json") && !fs::exists(fs::path(path) / kManifestFile)) {
    describe_model(read_hf_config(path));
    const SafetensorsFolder folder(path);
    std::map<std::string, std::pair<std::int64_t, std::int64_t>> types;  // tensors, bytes
    for (const auto& [name, entry] : folder.tensors()) {
      types[entry.info->dtype].first++;
      types[entry.info->dtype].second += entry.info->bytes();
    }
    for (const auto& [type, sum] : types) fmt::print("{:<19} {} tensors, {} bytes\n", type, sum.first, sum.second);
  } else {
    inspect_checkpoint(checkpoint_folder(path), arguments.has("--tensors"));
  }
  return kExitDone;
}

Program program() {
  Command import{"import-hf",
                 "a Hugging Face folder becomes a checkpoint of this program, to begin from",
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
                  {{"--tensors", Takes::nothing, "", "with every tensor of a checkpoint", {}, false}},
                  {"af_checkpoint inspect runs/x/checkpoints/latest", "af_checkpoint inspect runs/x/checkpoints/latest --tensors"},
                  inspect_command};
  Command verify{"verify", "reads every byte of a checkpoint and checks it", "CHECKPOINT", 1, 1, {}, {"af_checkpoint verify runs/x/checkpoints/latest"}, verify_command};
  Command diff{"diff",
               "the largest |difference| of each tensor of two checkpoints; exit 1 where there is any",
               "CHECKPOINT CHECKPOINT",
               2,
               2,
               {},
               {"af_checkpoint diff runs/a/checkpoints/latest runs/b/checkpoints/latest"},
               diff_command};
  Command average{"average",
                  "the mean of the weights of several checkpoints, as a checkpoint to begin from",
                  "CHECKPOINT CHECKPOINT [...] OUT",
                  3,
                  1000,
                  {},
                  {"af_checkpoint average runs/a/checkpoints/stage2-900 runs/a/checkpoints/stage2-1000 runs/mean"},
                  average_command};
  Command gc{"gc",
             "removes what a killed save left behind, and old checkpoints; stage ends stay. No run may be writing there",
             "CHECKPOINTS",
             1,
             1,
             {{"--keep", Takes::one_value, "N", "newest checkpoints that stay (default: all)", {}, false},
              {"--keep-every", Takes::one_value, "N", "those of every N iterations stay too", {}, false}},
             {"af_checkpoint gc runs/x/checkpoints --keep 2 --keep-every 1000"},
             gc_command};
  return {"af_checkpoint", "checkpoints: what is in them, whether they are whole, to and from Hugging Face",
          {inspect, verify, diff, average, gc, import, exporter}};
}

}  // namespace
}  // namespace af

int main(int argc, char** argv) { return af::run_program(af::program(), argc, argv); }
