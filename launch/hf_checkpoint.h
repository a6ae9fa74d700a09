// Model weights from and to a Hugging Face folder: config.json, safetensors in the published names, tokenizer files.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "models/config.h"
#include "parallel/parameter_set.h"

namespace af {

struct PublishedTensor {
  std::string name;
  Shape shape;
};
// All tensors of the model, in the order of transformers' state dict.
std::vector<PublishedTensor> published_tensors(const ModelConfig& config);

// Fills every slab of `set` from the folder, reading only the rows it needs; F32, BF16, F16 and F64 become the set's type.
// UserError, everything at once: tensors missing, not expected, of another shape; a config.json that computes something
// else than `config`; then, naming file, tensor and element, a value that is not finite. A tied model may come with the
// lm_head.weight that some publish, if it equals the embedding bit by bit.
void import_hf(const std::string& folder, const ModelConfig& config, ParameterSet& set);

// The same tensor by tensor, in the order of published_tensors(), for who keeps none of them: a few megabytes of rows at a time, in fp32.
using TensorSink = std::function<void(const PublishedTensor& tensor, std::int64_t row_begin, const Tensor& rows)>;
void stream_hf(const std::string& folder, const ModelConfig& config, const TensorSink& sink);

// Where the numbers of an export come from.
struct TensorSource {
  DType dtype;                                                                                   // of what read() gives
  std::function<void(const std::string& name, std::int64_t row_begin, const Tensor& out)> read;  // rows of the tensor; out [rows, cols]
};
// The slabs of a set that holds the whole model, out of its values or another flat tensor with the same offsets (master weights).
TensorSource tensors_of(const ParameterSet& set, const Tensor& flat);

struct HfExport {
  std::string source{};     // HF folder (or tokenizer folder): its tokenizer files, generation_config.json and token ids; "": none
  std::string tokenizer{};  // folder or file of the tokenizer in place of the source's; "": the source's
  std::string dtype{};   // F32, BF16 or F16; "": tensor by tensor as in the source's safetensors, without any BF16
  std::int64_t max_shard_size = 5'000'000'000;  // bytes, as in transformers' save_pretrained
};
// Writes the folder aside and renames it; it must not exist or be empty. A few megabytes are in memory at a time.
void export_hf(const std::string& folder, const ModelConfig& config, const TensorSource& tensors, const HfExport& options);

}  // namespace af
