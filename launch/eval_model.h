// The model that is evaluated: whole, in this process, from whatever layout its checkpoint was written in.
#pragma once
#include <memory>
#include <string>

#include "models/qwen3.h"

namespace af {

struct EvalSource {
  enum class Kind {
    checkpoint,  // a checkpoint of af_train, or the folder that holds `latest`
    hf,          // a Hugging Face folder
    random       // run.yaml: the weights that this run begins with where it begins at random, and the positions of its last stage
  };
  Kind kind;
  std::string path;
};

class EvalModel {
 public:
  // dtype: what is computed in, f32 or bf16; a checkpoint's master weights are rounded to it. UserError.
  EvalModel(const EvalSource& source, const Device& device, DType dtype);
  EvalModel(const EvalModel&) = delete;

  Qwen3Model& model() { return *model_; }
  const Context& context() const { return context_; }
  const ModelConfig& config() const { return model_->config(); }
  const std::string& name() const { return name_; }  // what was read
  std::int64_t max_tokens() const { return config().max_position_embeddings; }
  const std::string& tokenizer_sha256() const { return tokenizer_sha256_; }  // of the data it was trained on; "": not known

 private:
  std::string name_, tokenizer_sha256_;
  Device device_;
  Arena scratch_;
  Context context_;
  ParameterSet parameters_;
  std::unique_ptr<Qwen3Model> model_;
};

}  // namespace af
