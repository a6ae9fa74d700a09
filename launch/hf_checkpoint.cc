#include "launch/hf_checkpoint.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <vector>

#include "core/error.h"
#include "data/file.h"
#include "data/float_bytes.h"
#include "data/safetensors.h"
#include "launch/hf_config.h"

namespace af {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kChunkBytes = 4 << 20;  // read, converted and written at a time
constexpr char kEmbedding[] = "model.embed_tokens.weight", kHead[] = "lm_head.weight";

std::string file_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::bf16:
      return "BF16";
    case DType::f64:
      return "F64";
    default:
      break;
  }
  AF_CHECK(false, "{} is no type of weights", name_of(dtype));
}

std::vector<std::int64_t> dims_of(const Shape& shape) { return {shape.dims, shape.dims + shape.rank}; }
std::int64_t cols_of(const Shape& shape) { return shape.rank > 1 ? shape[1] : 1; }
std::int64_t chunk_rows(std::int64_t cols) { return std::max<std::int64_t>(1, kChunkBytes / (8 * cols)); }

// One message for all names of a kind, the first of them by name.
void add_names(std::vector<std::string>& errors, const std::string& what, const std::vector<std::string>& names) {
  if (names.empty()) return;
  constexpr std::size_t kShown = 10;
  std::string message = fmt::format("{} tensor{} {}: ", names.size(), names.size() == 1 ? "" : "s", what);
  for (std::size_t i = 0; i < std::min(kShown, names.size()); i++) message += (i ? ", " : "") + names[i];
  if (names.size() > kShown) message += fmt::format(" and {} more", names.size() - kShown);
  errors.push_back(message);
}

// What a config.json says of the computation beside the shapes. Positions may differ: a stage changes them.
void compare_configs(const ModelConfig& ours, const ModelConfig& theirs, std::vector<std::string>& errors) {
  const auto compare = [&](const char* field, const auto& a, const auto& b) {
    if (a != b) errors.push_back(fmt::format("config.json says {} = {}, the model of this run has {}", field, b, a));
  };
  compare("model_type", ours.model_type, theirs.model_type);
  compare("num_attention_heads", ours.num_attention_heads, theirs.num_attention_heads);
  compare("num_key_value_heads", ours.num_key_value_heads, theirs.num_key_value_heads);
  compare("head_dim", ours.head_dim, theirs.head_dim);
  compare("rms_norm_eps", ours.rms_norm_eps, theirs.rms_norm_eps);
  compare("tie_word_embeddings", ours.tie_word_embeddings, theirs.tie_word_embeddings);
  compare("num_experts_per_tok", ours.num_experts_per_tok, theirs.num_experts_per_tok);
  compare("norm_topk_prob", ours.norm_topk_prob, theirs.norm_topk_prob);
}

void check_folder(const SafetensorsFolder& folder, const ModelConfig& config, std::vector<std::string>& errors) {
  std::vector<std::string> missing, extra, misshapen;
  std::map<std::string, const PublishedTensor*> expected;
  const std::vector<PublishedTensor> published = published_tensors(config);
  for (const PublishedTensor& tensor : published) {
    expected[tensor.name] = &tensor;
    const auto found = folder.tensors().find(tensor.name);
    if (found == folder.tensors().end()) {
      missing.push_back(tensor.name);
      continue;
    }
    const SafetensorsInfo& info = *found->second.info;
    if (info.shape != dims_of(tensor.shape)) {
      misshapen.push_back(fmt::format("{} is {}, should be {}", info.name, info.shape_text(), tensor.shape.str()));
    } else if (!is_float_type(info.dtype)) {
      misshapen.push_back(fmt::format("{} is of type {}, should be F32, BF16, F16 or F64", info.name, info.dtype));
    }
  }
  for (const auto& [name, entry] : folder.tensors())
    if (!expected.contains(name) && !(config.tie_word_embeddings && name == kHead)) extra.push_back(name);
  add_names(errors, "missing", missing);
  add_names(errors, "not of this model", extra);
  add_names(errors, "of another shape or type", misshapen);
}

// A tied model's lm_head.weight, where published all the same, must be the embedding.
void check_tied_head(const SafetensorsFolder& folder) {
  const auto head = folder.tensors().find(kHead);
  if (head == folder.tensors().end()) return;
  const SafetensorsFolder::Entry &a = folder.tensors().at(kEmbedding), &b = head->second;
  bool same = a.info->dtype == b.info->dtype && a.info->shape == b.info->shape;
  std::vector<char> x(kChunkBytes), y(kChunkBytes);
  for (std::int64_t at = 0; same && at < a.info->bytes(); at += kChunkBytes) {
    const std::int64_t size = std::min(kChunkBytes, a.info->bytes() - at);
    a.file->read(*a.info, at, size, x.data());
    b.file->read(*b.info, at, size, y.data());
    same = std::memcmp(x.data(), y.data(), std::size_t(size)) == 0;
  }
  if (!same) user_error("{}: config.json says tie_word_embeddings but lm_head.weight is not model.embed_tokens.weight", b.file->path());
}

// Rows of a file's tensor, columns [col_begin, col_begin + cols), into the slab's rectangle.
void import_slab(const SafetensorsFolder::Entry& entry, const Slab& slab, const Tensor& out, std::vector<char>& bytes) {
  const SafetensorsInfo& info = *entry.info;
  const std::int64_t file_cols = cols_of(slab.global_shape), size = std::int64_t(safetensors_size_of(info.dtype)), step = chunk_rows(file_cols);
  const std::string to = file_type(out.dtype);
  const std::int64_t out_size = std::int64_t(size_of(out.dtype));
  for (std::int64_t row = 0; row < slab.rows; row += step) {
    const std::int64_t rows = std::min(step, slab.rows - row);
    // From the first element needed to the last: without gaps where the slab has all columns.
    const std::int64_t begin = (slab.row_begin + row) * file_cols + slab.col_begin, count = (rows - 1) * file_cols + slab.cols;
    bytes.resize(std::size_t(count * size));
    entry.file->read(info, begin * size, count * size, bytes.data());
    const std::int64_t lines = slab.cols == file_cols ? 1 : rows, per_line = slab.cols == file_cols ? count : slab.cols;
    for (std::int64_t i = 0; i < lines; i++) {
      const char* from = bytes.data() + i * file_cols * size;
      if (const std::int64_t bad = first_not_finite(info.dtype, from, per_line); bad >= 0) {
        const std::int64_t index = begin + i * file_cols + bad;
        user_error("{}: {} is not finite (NaN or infinity) at [{}, {}]", entry.file->path(), info.name, index / file_cols, index % file_cols);
      }
      convert_floats(info.dtype, from, to, static_cast<char*>(out.data) + (row + i) * slab.cols * out_size, per_line);
    }
  }
}

bool has_weights(const std::string& folder) {
  return fs::exists(fs::path(folder) / "model.safetensors") || fs::exists(fs::path(folder) / "model.safetensors.index.json");
}

// The tensors to be written, each with its type.
std::vector<SafetensorsInfo> plan_export(const ModelConfig& config, const HfExport& options) {
  std::optional<SafetensorsFolder> source;
  if (!options.source.empty() && has_weights(options.source)) source.emplace(options.source);
  std::vector<PublishedTensor> published = published_tensors(config);
  if (source && config.tie_word_embeddings && source->tensors().contains(kHead)) published.push_back({kHead, published[0].shape});
  std::vector<SafetensorsInfo> out;
  for (const PublishedTensor& tensor : published) {
    std::string type = options.dtype.empty() ? "BF16" : options.dtype;
    if (source && options.dtype.empty()) {
      const auto found = source->tensors().find(tensor.name);
      if (found == source->tensors().end())
        user_error("{}: has no {}; without --dtype the export takes each tensor's type from there", options.source, tensor.name);
      type = found->second.info->dtype;
    }
    out.push_back({tensor.name, type, dims_of(tensor.shape)});
  }
  return out;
}

void write_tensor(SafetensorsWriter& writer, const SafetensorsInfo& info, const std::string& name, const TensorSource& source) {
  const std::int64_t rows = info.shape[0], cols = info.shape.size() > 1 ? info.shape[1] : 1, step = chunk_rows(cols);
  const std::int64_t from_size = std::int64_t(size_of(source.dtype)), to_size = std::int64_t(safetensors_size_of(info.dtype));
  std::vector<char> from(std::size_t(step * cols * from_size)), to(std::size_t(step * cols * to_size));
  for (std::int64_t row = 0; row < rows; row += step) {
    const std::int64_t count = std::min(step, rows - row) * cols;
    source.read(name, row, Tensor(from.data(), source.dtype, {count / cols, cols}));
    convert_floats(file_type(source.dtype), from.data(), info.dtype, to.data(), count);
    if (const std::int64_t bad = first_not_finite(info.dtype, to.data(), count); bad >= 0) {
      user_error("{} is not finite as {} at [{}, {}]", info.name, info.dtype, row + bad / cols, bad % cols);
    }
    writer.write(info, row * cols * to_size, count * to_size, to.data());
  }
}

void write_weights(const fs::path& folder, const ModelConfig& config, const TensorSource& source,
                   const std::vector<std::vector<SafetensorsInfo>>& shards) {
  std::int64_t total_parameters = 0;
  for (std::size_t i = 0; i < shards.size(); i++) {
    SafetensorsWriter writer((folder / shard_name(i, shards.size())).string(), shards[i], {{"format", "pt"}});
    for (const SafetensorsInfo& info : writer.tensors()) {
      // A tied model's published head is its embedding.
      write_tensor(writer, info, config.tie_word_embeddings && info.name == kHead ? kEmbedding : info.name, source);
      total_parameters += info.numel();
    }
    writer.finish();
  }
  if (shards.size() > 1) write_file((folder / "model.safetensors.index.json").string(), shard_index(shards, total_parameters));
}

std::string torch_name(const std::string& type) {
  return type == "BF16" ? "bfloat16" : type == "F16" ? "float16" : type == "F64" ? "float64" : "float32";
}

// A tokenizer's files, unchanged: of a folder, or the one that is named.
void copy_tokenizer(const fs::path& from, const fs::path& to) {
  if (fs::is_regular_file(from)) {
    fs::copy_file(from, to / from.filename());
    return;
  }
  if (!fs::is_directory(from)) user_error("{}: is no folder to copy tokenizer files from", from.string());
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "qwen.tiktoken", "special_tokens_map.json",
                           "added_tokens.json", "chat_template.jinja", "chat_template.json"}) {
    if (fs::exists(from / name)) fs::copy_file(from / name, to / name);
  }
}

// What a source says of generation: its file, unchanged, and the token ids of config.json.
void copy_generation(const fs::path& source, const fs::path& to, Json& config) {
  if (!fs::is_directory(source)) user_error("{}: is no folder to copy generation_config.json from", source.string());
  if (fs::exists(source / "generation_config.json")) fs::copy_file(source / "generation_config.json", to / "generation_config.json");
  const fs::path theirs = source / "config.json";
  if (!fs::exists(theirs)) return;
  const Json json = Json::parse_file(theirs.string());
  for (const char* name : {"bos_token_id", "eos_token_id", "pad_token_id"})
    if (const Json* id = json.find(name)) config.set(name, *id);
}

}  // namespace

std::vector<PublishedTensor> published_tensors(const ModelConfig& c) {
  std::vector<PublishedTensor> out;
  const std::int64_t h = c.hidden_size, q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  const auto mlp = [&](const std::string& prefix, std::int64_t width) {
    out.push_back({prefix + "gate_proj.weight", {width, h}});
    out.push_back({prefix + "up_proj.weight", {width, h}});
    out.push_back({prefix + "down_proj.weight", {h, width}});
  };
  out.push_back({kEmbedding, {c.vocab_size, h}});
  for (std::int64_t i = 0; i < c.num_hidden_layers; i++) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    out.push_back({layer + "self_attn.q_proj.weight", {q, h}});
    out.push_back({layer + "self_attn.k_proj.weight", {kv, h}});
    out.push_back({layer + "self_attn.v_proj.weight", {kv, h}});
    out.push_back({layer + "self_attn.o_proj.weight", {h, q}});
    out.push_back({layer + "self_attn.q_norm.weight", {c.head_dim}});
    out.push_back({layer + "self_attn.k_norm.weight", {c.head_dim}});
    if (c.is_moe_layer(i)) {
      out.push_back({layer + "mlp.gate.weight", {c.num_experts, h}});
      for (std::int64_t e = 0; e < c.num_experts; e++) mlp(fmt::format("{}mlp.experts.{}.", layer, e), c.moe_intermediate_size);
    } else {
      mlp(layer + "mlp.", c.intermediate_size);
    }
    out.push_back({layer + "input_layernorm.weight", {h}});
    out.push_back({layer + "post_attention_layernorm.weight", {h}});
  }
  out.push_back({"model.norm.weight", {h}});
  if (!c.tie_word_embeddings) out.push_back({kHead, {c.vocab_size, h}});
  return out;
}

namespace {

// Everything that is wrong with a folder at once, before any weight is read.
void check_import(const ModelConfig& theirs, const std::string& path, const SafetensorsFolder& folder, const ModelConfig& config) {
  std::vector<std::string> errors;
  compare_configs(config, theirs, errors);
  check_folder(folder, config, errors);
  if (!errors.empty()) {
    std::string all;
    for (const std::string& error : errors) all += fmt::format("{}{}: {}", all.empty() ? "" : "\n", path, error);
    throw UserError(all);
  }
  if (config.tie_word_embeddings) check_tied_head(folder);
}

}  // namespace

void stream_hf(const std::string& path, const ModelConfig& config, const TensorSink& sink) {
  const ModelConfig theirs = read_hf_config(path);
  const SafetensorsFolder folder(path);
  check_import(theirs, path, folder, config);
  std::vector<char> bytes, rows;
  for (const PublishedTensor& tensor : published_tensors(config)) {
    const std::int64_t cols = cols_of(tensor.shape), step = chunk_rows(cols);
    for (std::int64_t row = 0; row < tensor.shape[0]; row += step) {
      const Slab slab{tensor.name, tensor.shape, row, std::min(step, tensor.shape[0] - row), 0, cols, 0};
      rows.resize(std::size_t(slab.rows * cols) * size_of(DType::f32));
      const Tensor out(rows.data(), DType::f32, {slab.rows, cols});
      import_slab(folder.tensors().at(tensor.name), slab, out, bytes);
      sink(tensor, row, out);
    }
  }
}

void import_hf(const std::string& path, const ModelConfig& config, ParameterSet& set) {
  const ModelConfig theirs = read_hf_config(path);
  const SafetensorsFolder folder(path);
  check_import(theirs, path, folder, config);
  std::vector<char> bytes;
  for (Parameter& parameter : set.parameters()) {
    for (const Slab& slab : parameter.slabs) {
      const SafetensorsFolder::Entry& entry = folder.tensors().at(slab.name);
      AF_CHECK(entry.info->shape == dims_of(slab.global_shape), "{}: {} against {}", slab.name, entry.info->shape_text(), slab.global_shape.str());
      import_slab(entry, slab, slab_view(slab, parameter.value), bytes);
    }
  }
}

TensorSource tensors_of(const ParameterSet& set, const Tensor& flat) {
  struct Place {
    Slab slab;
    Tensor values;  // [rows, cols]
  };
  std::map<std::string, std::vector<Place>> places;
  for (const Parameter& parameter : set.parameters()) {
    const std::int64_t begin = set.begin_of(parameter);
    const Tensor values = flat.slice_rows(begin, begin + parameter.numel());
    for (const Slab& slab : parameter.slabs) places[slab.name].push_back({slab, slab_view(slab, values)});
  }
  const auto read = [places = std::move(places)](const std::string& name, std::int64_t row_begin, const Tensor& out) {
    const auto found = places.find(name);
    AF_CHECK(found != places.end(), "no parameter holds {}", name);
    std::int64_t filled = 0;
    const std::size_t size = size_of(out.dtype);
    for (const auto& [slab, values] : found->second) {
      const std::int64_t begin = std::max(row_begin, slab.row_begin), end = std::min(row_begin + out.rows(), slab.row_begin + slab.rows);
      for (std::int64_t row = begin; row < end; row++) {
        std::memcpy(static_cast<char*>(out.data) + std::size_t((row - row_begin) * out.cols() + slab.col_begin) * size,
                    static_cast<const char*>(values.data) + std::size_t((row - slab.row_begin) * slab.cols) * size, std::size_t(slab.cols) * size);
      }
      filled += std::max<std::int64_t>(0, end - begin) * slab.cols;
    }
    AF_CHECK(filled == out.numel(), "{}: the set holds {} of {} elements", name, filled, out.numel());
  };
  return {flat.dtype, read};
}

void export_hf(const std::string& folder, const ModelConfig& config, const TensorSource& tensors, const HfExport& options) {
  fs::path to = fs::path(folder).lexically_normal();
  if (!to.has_filename()) to = to.parent_path();  // "out/"
  if (fs::exists(to) && !(fs::is_directory(to) && fs::is_empty(to))) user_error("{}: exists already; an export writes a new folder", folder);
  const std::vector<SafetensorsInfo> plan = plan_export(config, options);
  const fs::path aside = to.string() + ".partial";
  make_empty_folder(aside);
  try {
    write_weights(aside, config, tensors, split_into_shards(plan, options.max_shard_size));
    Json json = write_hf_config(config, torch_name(plan[0].dtype));
    if (!options.tokenizer.empty() || !options.source.empty()) copy_tokenizer(options.tokenizer.empty() ? options.source : options.tokenizer, aside);
    if (!options.source.empty()) copy_generation(options.source, aside, json);
    write_file((aside / "config.json").string(), json.dump(2) + "\n");
    fs::rename(aside, to);
  } catch (...) {
    fs::remove_all(aside);
    throw;
  }
  sync_folder(to.has_parent_path() ? to.parent_path().string() : ".");
}

}  // namespace af
