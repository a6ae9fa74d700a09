// A Hugging Face folder and a batch.json (tests/oracle/make_models.py) run through this program's model and optimizer:
// what the comparison with transformers and the goldens look at.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/ops/elementwise.h"
#include "data/json.h"
#include "launch/hf_checkpoint.h"
#include "launch/hf_config.h"
#include "models/qwen3.h"
#include "parallel/optimizer.h"

namespace af::oracle {

struct Step {
  std::vector<std::int32_t> tokens, targets, positions;
  std::vector<AttentionSegment> documents;
  std::int64_t counted = 0;  // targets that are not -1
};

struct Batch {
  OptimizerSettings optimizer;
  double lr = 0;
  std::vector<Step> steps;
};

inline std::vector<std::int32_t> read_integers(const JsonView& view) {
  std::vector<std::int32_t> out;
  for (const Json& value : view.array()) out.push_back(std::int32_t(value.integer(view.where())));
  return out;
}

inline Batch read_batch(const std::string& path) {
  const Json json = Json::parse_file(path);
  const JsonView view(json, path), optimizer = view["optimizer"];
  Batch batch;
  batch.lr = optimizer["lr"].number();
  batch.optimizer = {optimizer["beta1"].number(), optimizer["beta2"].number(), optimizer["eps"].number(), optimizer["weight_decay"].number(),
                     optimizer["clip_grad"].number()};
  for (std::size_t i = 0; i < view["steps"].size(); i++) {
    const JsonView from = view["steps"][i];
    Step step;
    step.tokens = read_integers(from["tokens"]);
    step.targets = read_integers(from["targets"]);
    step.positions = read_integers(from["positions"]);
    for (const std::int32_t target : step.targets) step.counted += target >= 0;
    for (std::size_t d = 0; d < from["documents"].size(); d++) {
      const std::int64_t begin = from["documents"][d][0].integer(), end = from["documents"][d][1].integer();
      step.documents.push_back({begin, end, begin, end});
    }
    AF_CHECK(step.tokens.size() == step.targets.size() && step.tokens.size() == step.positions.size(), "{}: step {} is not whole", path, i);
    batch.steps.push_back(std::move(step));
  }
  return batch;
}

class Probe {
 public:
  Probe(const std::string& hf_folder, DType dtype)
      : config_(read_hf_config(hf_folder)),
        scratch_(device_, "scratch"),
        parameters_(device_, dtype),
        model_(config_, device_, parameters_),
        saved_(device_, config_.num_hidden_layers) {
    parameters_.allocate();
    import_hf(hf_folder, config_, parameters_);
    model_.set_rope(context(), config_.rope, config_.max_position_embeddings);
    optimizer_ = std::make_unique<Optimizer>(device_, parameters_);
  }

  const ModelConfig& config() const { return config_; }
  const ParameterSet& parameters() const { return parameters_; }

  // Loss per counted target of one packed micro-batch; gradients are added.
  double forward_backward(Step& step) {
    const MicroBatch batch = micro_batch(step);
    const Pass p = pass(batch);
    model_.forward(p, 1.0 / double(step.counted), saved_);
    const double loss = sum(context(), saved_.token_loss) / double(step.counted);
    model_.backward(p, saved_);
    saved_.reset();
    return loss;
  }
  void optimize(const Batch& batch) { optimizer_->step(context(), batch.optimizer, batch.lr); }
  // [T, V] in the accumulator type; `memory` must live as long as they are used.
  Tensor logits(Step& step, Arena& memory) {
    const MicroBatch batch = micro_batch(step);
    const std::int64_t tokens = std::int64_t(step.tokens.size());
    const DType accumulator = accumulator_of(parameters_.dtype());
    const Tensor out = memory.tensor({tokens, config_.vocab_size}, accumulator);
    model_.evaluate(pass(batch), memory.tensor({tokens}, accumulator), out);
    return out;
  }

 private:
  Context context() { return {device_, scratch_}; }
  static MicroBatch micro_batch(Step& step) {
    const Shape shape = {std::int64_t(step.tokens.size())};
    return {Tensor(step.tokens.data(), DType::i32, shape), Tensor(step.targets.data(), DType::i32, shape),
            Tensor(step.positions.data(), DType::i32, shape), 1, step.documents};
  }
  Pass pass(const MicroBatch& batch) { return {context(), batch, saved_.keep, saved_.routed, Mode::train, recompute_, balance_}; }

  const ModelConfig config_;
  Device device_;
  Arena scratch_;
  ParameterSet parameters_;
  Qwen3Model model_;
  Qwen3Model::Saved saved_;
  std::unique_ptr<Optimizer> optimizer_;
  const RecomputeSettings recompute_;
  const BalanceSettings balance_;
};

}  // namespace af::oracle
