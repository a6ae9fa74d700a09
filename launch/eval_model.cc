#include "launch/eval_model.h"

#include <algorithm>

#include "launch/checkpoint.h"
#include "launch/config_yaml.h"
#include "launch/hf_checkpoint.h"
#include "launch/hf_config.h"

namespace af {

EvalModel::EvalModel(const EvalSource& source, const Device& device, DType dtype)
    : name_(source.kind == EvalSource::Kind::checkpoint ? checkpoint_folder(source.path) : source.path),
      device_(device),
      scratch_(device, "scratch"),
      context_{device_, scratch_},
      parameters_(device, dtype) {
  ModelConfig config;
  std::uint64_t seed = 0;
  switch (source.kind) {
    case EvalSource::Kind::checkpoint:
      config = read_model(name_);
      tokenizer_sha256_ = read_state(name_).tokenizer_sha256;
      break;
    case EvalSource::Kind::hf: config = read_hf_config(name_); break;
    case EvalSource::Kind::random: {
      const Config run = read_config(name_, {});
      config = run.model;
      config.rope = run.stages.back().rope;
      config.max_position_embeddings = std::max(config.max_position_embeddings, run.stages.back().seq_length);
      seed = run.seed;
    }
  }
  model_ = std::make_unique<Qwen3Model>(config, device_, parameters_);
  parameters_.allocate_values({});
  switch (source.kind) {
    case EvalSource::Kind::checkpoint: load_weights(context_, name_, parameters_); break;
    case EvalSource::Kind::hf: import_hf(name_, config, parameters_); break;
    case EvalSource::Kind::random: initialize(context_, parameters_, seed, config.initializer_range); break;
  }
  model_->set_rope(context_, config.rope, config.max_position_embeddings);
}

}  // namespace af
