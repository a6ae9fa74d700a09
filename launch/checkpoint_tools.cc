#include "launch/checkpoint_tools.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <filesystem>
#include <set>

#include <fmt/format.h>

#include "data/file.h"
#include "data/json.h"
#include "launch/checkpoint_reader.h"
#include "launch/checkpoint_saver.h"
#include "launch/hf_checkpoint.h"
#include "launch/hf_config.h"

namespace af {
namespace {

namespace fs = std::filesystem;
constexpr std::int64_t kChunkElements = 1 << 20;

std::int64_t cols_of(const Shape& shape) { return shape.numel() / shape[0]; }

// f(row, rows): a tensor's rows in portions that fit in memory.
template <class F>
void for_each_chunk(const Shape& shape, F f) {
  const std::int64_t step = std::max<std::int64_t>(1, kChunkElements / cols_of(shape));
  for (std::int64_t row = 0; row < shape[0]; row += step) f(row, std::min(step, shape[0] - row));
}

double element(const std::vector<char>& values, DType dtype, std::int64_t i) {
  return dtype == DType::f64 ? reinterpret_cast<const double*>(values.data())[i] : double(reinterpret_cast<const float*>(values.data())[i]);
}

// Rows of a state of one checkpoint at a time.
struct Rows {
  explicit Rows(const std::string& path) : reader(path) {}
  void read(OptimizerState state, const ShardTensor& tensor, std::int64_t row, std::int64_t rows) {
    values.resize(std::size_t(rows * cols_of(tensor.shape)) * size_of(reader.dtype()));
    reader.read_rows(state, tensor.name, row, Tensor(values.data(), reader.dtype(), {rows, cols_of(tensor.shape)}));
  }
  double operator[](std::int64_t i) const { return element(values, reader.dtype(), i); }
  CheckpointReader reader;
  std::vector<char> values;
};

// A checkpoint of weights alone, written by one process: its tensors in the order of the model's.
class WeightsWriter {
 public:
  WeightsWriter(const std::string& to, const ModelConfig& config, DType dtype) : to_(fs::path(to).lexically_normal()), dtype_(dtype) {
    if (!to_.has_filename()) to_ = to_.parent_path();  // "out/"
    if (fs::exists(to_)) user_error("{}: exists already", to);
    aside_ = to_.string() + ".tmp";
    make_empty_folder(aside_);
    for (const PublishedTensor& tensor : published_tensors(config))
      table_.add(tensor.name, tensor.shape, {0, tensor.shape[0], 0, cols_of(tensor.shape)});
    writer_.emplace((aside_ / shard_file(0)).string(), dtype, 1, table_);
  }
  ~WeightsWriter() {
    std::error_code ignored;
    if (!finished_) fs::remove_all(aside_, ignored);
  }
  void append(const void* values, std::int64_t count) { writer_->append(0, values, count); }
  const std::vector<ShardTensor>& tensors() const { return table_.tensors; }
  // `files`: texts that belong to it, by name.
  std::string finish(const std::vector<std::pair<std::string, std::string>>& files) {
    CheckpointManifest manifest;
    manifest.dtype = dtype_;
    manifest.states = 1;
    manifest.shards.push_back({shard_file(0), writer_->finish()});
    for (const auto& [name, text] : files) {
      write_file((aside_ / name).string(), text);
      manifest.files.push_back(describe_file(name, text));
    }
    write_file((aside_ / kManifestFile).string(), to_text(manifest));
    sync_folder(aside_.string());
    fs::rename(aside_, to_);
    sync_folder(to_.has_parent_path() ? to_.parent_path().string() : ".");
    finished_ = true;
    return to_.string();
  }

 private:
  fs::path to_, aside_;
  DType dtype_;
  ShardTable table_;
  std::optional<ShardWriter> writer_;
  bool finished_ = false;
};

std::string config_text(const ModelConfig& config, DType dtype) { return write_hf_config(config, name_of(dtype)).dump(2) + "\n"; }

}  // namespace

void describe_model(const ModelConfig& c) {
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

void inspect_checkpoint(const std::string& path, bool tensors) {
  const CheckpointReader reader(path);
  const CheckpointManifest& manifest = reader.manifest();
  fmt::print("checkpoint          {}\n", path);
  if (manifest.states == 3) {
    const TrainingState state = read_state(path);
    fmt::print("stage               {} ({} iterations in it{})\n", state.stage_name, state.stage_iteration, state.stage_finished ? ", finished" : "");
    fmt::print("iteration           {}, {} samples, {} tokens consumed, {} steps skipped\n", state.iteration, state.consumed_samples,
               state.consumed_tokens, state.skipped);
    for (const LossSpike& spike : state.spikes)
      fmt::print("loss spike          at iteration {}: {:.6g}, median {:.6g}; went on from iteration {} without the samples of {} steps\n", spike.iteration,
                 spike.lm_loss, spike.median, spike.back_to, spike.steps);
    const std::string text = to_json(state.stream).dump();
    fmt::print("data                {}\n", text);
    fmt::print("written by          {}\n", manifest.layout);
  } else {
    fmt::print("weights alone       to begin from: init: {{checkpoint: {}}}\n", path);
  }
  describe_model(read_model(path));
  std::int64_t bytes = 0;
  for (const CheckpointManifest::Shard& shard : manifest.shards) bytes += shard.info.bytes;
  fmt::print("files               {} shards, {} bytes; {} in {}\n", manifest.shards.size(), bytes,
             manifest.states == 3 ? "master weights and two moments" : "master weights", name_of(manifest.dtype));
  if (!tensors) return;
  fmt::print("\n{:<60} {:<16} {:>14} {:>14}\n", "tensor", "shape", "elements", "bytes");
  std::int64_t count = 0;
  reader.for_each_tensor([&](const ShardTensor& tensor) {
    const std::int64_t n = tensor.shape.numel();
    fmt::print("{:<60} {:<16} {:>14} {:>14}\n", tensor.name, tensor.shape.str(), n, n * manifest.states * std::int64_t(size_of(manifest.dtype)));
    ++count;
  });
  fmt::print("{} tensors\n", count);
}

bool diff_checkpoints(const std::string& path_a, const std::string& path_b) {
  Rows a(path_a), b(path_b);
  const int states = std::min(a.reader.manifest().states, b.reader.manifest().states);
  bool same = true;
  double worst[3] = {};
  std::int64_t tensors = 0;
  std::vector<ShardTensor> all;
  a.reader.for_each_tensor([&](const ShardTensor& tensor) { all.push_back(tensor); });
  for (const ShardTensor& tensor : all) {
    if (!b.reader.has(tensor.name) || !(b.reader.shape(tensor.name) == tensor.shape)) {
      fmt::print("{}: {}\n", tensor.name, b.reader.has(tensor.name) ? "of another shape in " + path_b : "only in " + path_a);
      same = false;
      continue;
    }
    ++tensors;
    std::string line;
    for (int s = 0; s < states; ++s) {
      double most = 0;
      for_each_chunk(tensor.shape, [&](std::int64_t row, std::int64_t rows) {
        a.read(OptimizerState(s), tensor, row, rows);
        b.read(OptimizerState(s), tensor, row, rows);
        for (std::int64_t i = 0; i < rows * cols_of(tensor.shape); ++i) {
          const double difference = std::abs(a[i] - b[i]);
          if (!(difference <= most) && !(std::isnan(a[i]) && std::isnan(b[i]))) most = difference;
        }
      });
      if (most != 0) line += fmt::format("  {} {:.9g}", kStateNames[s], most), same = false;
      if (!(most <= worst[s])) worst[s] = most;
    }
    if (!line.empty()) fmt::print("{:<60}{}\n", tensor.name, line);
  }
  b.reader.for_each_tensor([&](const ShardTensor& tensor) {
    if (!a.reader.has(tensor.name)) fmt::print("{}: only in {}\n", tensor.name, path_b), same = false;
  });
  fmt::print("{} tensors compared; max |difference|:", tensors);
  for (int s = 0; s < states; ++s) fmt::print(" {} {:g}", kStateNames[s], worst[s]);
  fmt::print("\n");
  return same;
}

void average_checkpoints(const std::vector<std::string>& from, const std::string& to) {
  std::deque<Rows> inputs;
  for (const std::string& path : from) inputs.emplace_back(path);
  const ModelConfig config = read_model(from.back());
  const DType dtype = inputs[0].reader.dtype();
  WeightsWriter writer(to, config, dtype);
  std::set<std::string> names;
  for (const ShardTensor& tensor : writer.tensors()) names.insert(tensor.name);
  for (const Rows& input : inputs)
    input.reader.for_each_tensor([&](const ShardTensor& tensor) {
      if (!names.contains(tensor.name)) user_error("{}: has {}, which {} has not; a mean is of checkpoints of one model", input.reader.path(), tensor.name, from.back());
    });
  std::vector<char> mean;
  for (const ShardTensor& tensor : writer.tensors()) {
    for (const Rows& input : inputs)
      if (!(input.reader.shape(tensor.name) == tensor.shape)) user_error("{}: {} is of another shape than in {}", input.reader.path(), tensor.name, from.back());
    for_each_chunk(tensor.shape, [&](std::int64_t row, std::int64_t rows) {
      const std::int64_t count = rows * cols_of(tensor.shape);
      mean.resize(std::size_t(count) * size_of(dtype));
      for (Rows& input : inputs) input.read(OptimizerState::master, tensor, row, rows);
      for (std::int64_t i = 0; i < count; ++i) {
        double sum = 0;
        for (const Rows& input : inputs) sum += input[i];
        sum /= double(inputs.size());
        if (dtype == DType::f64) reinterpret_cast<double*>(mean.data())[i] = sum;
        else reinterpret_cast<float*>(mean.data())[i] = float(sum);
      }
      writer.append(mean.data(), count);
    });
  }
  writer.finish({{"config.json", config_text(config, dtype)}, {"run.yaml", read_file(from.back() + "/run.yaml")}});
}

std::string import_checkpoint(const std::string& hf_folder, const std::string& root) {
  const ModelConfig config = read_hf_config(hf_folder);
  WeightsWriter writer(root + "/import-0", config, DType::f32);
  stream_hf(hf_folder, config, [&](const PublishedTensor&, std::int64_t, const Tensor& rows) { writer.append(rows.data, rows.numel()); });
  const std::string path = writer.finish({{"config.json", config_text(config, DType::f32)}, {kSourceFile, fs::absolute(hf_folder).string()}});
  point_latest(root, "import-0");
  return path;
}

}  // namespace af
