#include "launch/eval_job.h"

#include <chrono>
#include <filesystem>
#include <thread>

#include <fmt/format.h>

#include "data/file.h"
#include "data/json.h"
#include "data/text_blocks.h"
#include "launch/environment.h"
#include "parallel/comm_mpi.h"

namespace af {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMaxLineBytes = 1 << 28;

RuntimeConfig runtime_from(const Arguments& arguments) {
  RuntimeConfig runtime;
  runtime.threads_per_rank = arguments.has("--threads") ? arguments.integer("--threads", 1, 1) : 0;
  return runtime;
}

}  // namespace

std::vector<Option> eval_model_options() {
  return {{"--checkpoint", Takes::one_value, "DIR", "the model: a checkpoint of af_train, or the folder of checkpoints, whose latest is taken", {}, false},
          {"--hf", Takes::one_value, "DIR", "the model: a Hugging Face folder", {}, false},
          {"--random", Takes::one_value, "RUN.yaml", "the model: the random weights with which this run of af_train begins", {}, false},
          {"--tokenizer", Takes::one_value, "NAME", "as in af_data tokenize (default: the folder of --hf)", {}, false},
          {"--precision", Takes::one_value, "", "what is computed in (default: fp32)", {"fp32", "bf16"}, false},
          {"--threads", Takes::one_value, "N", "default: all cores; the result does not depend on it", {}, false}};
}

int run_eval(const Arguments& arguments, const std::function<int(const EvalJob&)>& work) {
  const JobEnvironment job = job_environment();
  if (!job.mpi) return work({Comm(), start_device(runtime_from(arguments), job)});
  CommOptions options;
  options.timeout_seconds = 0;  // a rank that has its share done waits for the others
  options.ranks_on_host = job.ranks_on_host;
  MpiWorld mpi(options);
  try {
    return work({mpi.world(), start_device(runtime_from(arguments), job)});
  } catch (const UserError& error) {
    if (mpi.rank() > 0) std::this_thread::sleep_for(std::chrono::seconds(3));  // most mistakes are found by every rank: the first says so alone
    mpi.abort(error.what(), kExitUsage);
  } catch (const std::exception& error) {
    mpi.abort(error.what(), kExitFailed);
  }
}

EvalModel eval_model_from(const Arguments& arguments, const Device& device) {
  const std::pair<const char*, EvalSource::Kind> sources[] = {
      {"--checkpoint", EvalSource::Kind::checkpoint}, {"--hf", EvalSource::Kind::hf}, {"--random", EvalSource::Kind::random}};
  std::vector<EvalSource> given;
  for (const auto& [option, kind] : sources)
    if (arguments.has(option)) given.push_back({kind, arguments.value(option)});
  if (given.size() != 1) user_error("which model? Exactly one of --checkpoint DIR, --hf DIR and --random RUN.yaml; {} are given", given.size());
  return EvalModel(given.front(), device, arguments.value("--precision") == "bf16" ? DType::bf16 : DType::f32);
}

std::unique_ptr<Tokenizer> eval_tokenizer_from(const Arguments& arguments, const EvalModel& model) {
  if (!arguments.has("--tokenizer") && !arguments.has("--hf")) user_error("--tokenizer NAME is missing: the one that the model's data was tokenized with");
  const std::string name = arguments.value("--tokenizer", arguments.value("--hf"));
  std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(name);
  if (tokenizer->vocab_size() > model.config().vocab_size)
    user_error("--tokenizer {}: {} ids, and the model {} has {}", name, tokenizer->vocab_size(), model.name(), model.config().vocab_size);
  if (!model.tokenizer_sha256().empty() && model.tokenizer_sha256() != tokenizer->sha256())
    user_error("--tokenizer {}: is not the one of the data that {} was trained on", name, model.name());
  return tokenizer;
}

void read_json_lines(const std::vector<std::string>& files, const std::function<bool(const Json& json, const std::string& where)>& line) {
  for (const std::string& file : files) {
    const TextSource source{file, true, stamp_of(file)};
    BlockReader reader(source, 0, kMaxLineBytes);
    TextBlock block;
    do {
      reader.next(block);
      if (!block.problems.empty()) user_error("{}:{}: {}", file, block.problems.front().line, block.problems.front().what);
      std::int64_t number = block.first_line;
      for (std::size_t begin = 0, end; begin < block.text.size(); begin = end + 1, ++number) {
        end = std::min(block.text.find('\n', begin), block.text.size());
        const std::string_view text = std::string_view(block.text).substr(begin, end - begin);
        if (text.find_first_not_of(" \t\r") == text.npos) continue;
        if (!line(Json::parse(text, file, number), fmt::format("{}:{}", file, number))) return;
      }
    } while (!block.last);
  }
}

std::vector<Sample> read_samples(const std::vector<std::string>& files, std::int64_t limit) {
  std::vector<Sample> samples;
  read_json_lines(files, [&](const Json& json, const std::string& where) {
    samples.push_back(sample_from(JsonView(json, where)));
    return std::int64_t(samples.size()) < limit;
  });
  return samples;
}

void write_output(const std::string& path, const std::string& contents) {
  if (path.empty()) return;
  write_file(path + ".part", contents);
  fs::rename(path + ".part", path);
}

}  // namespace af
