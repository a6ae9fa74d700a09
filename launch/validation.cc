#include "launch/validation.h"

#include <algorithm>

#include "core/ops/elementwise.h"

namespace af {

namespace {

SequenceStream open_source(const DataSource& source, std::int64_t seq_length) {
  return SequenceStream({{source.path, source.name, 1}}, seq_length, 0, {}, Order::sequential);
}

}  // namespace

Validation::Validation(const ValidationConfig& config, const StageConfig& stage, const Device& device)
    : config_(config), stage_(stage), batch_(device, stage.seq_length, stage.micro_batch_size, 1) {
  for (const DataSource& source : config.data)
    sequences_.push_back(std::min(config.eval_iters * stage.global_batch_size, open_source(source, stage.seq_length).sequences_per_epoch(0)));
}

std::vector<ValidationResult> Validation::run(const Context& context, Qwen3Model& model) {
  std::vector<ValidationResult> results;
  std::vector<PackedSequence> sequences;
  for (std::size_t i = 0; i < config_.data.size(); ++i) {
    ValidationResult result{config_.data[i].name, 0, 0, sequences_[i]};
    SequenceStream stream = open_source(config_.data[i], stage_.seq_length);
    double loss = 0;
    for (std::int64_t begin = 0; begin < result.sequences; begin += stage_.micro_batch_size) {
      stream.next(stage_.micro_batch_size, 0, 1, sequences);
      for (std::int64_t j = std::max<std::int64_t>(result.sequences - begin, 0); j < stage_.micro_batch_size; ++j)  // fills up the last micro-batch
        std::fill(sequences[std::size_t(j)].targets.begin(), sequences[std::size_t(j)].targets.end(), -1);
      batch_.assign(sequences);
      Arena::Scope scope(context.scratch);
      Tensor token_loss = context.scratch.tensor({batch_.tokens()}, accumulator_of(model.parameters().dtype()));
      Pass pass{context, batch_[0], context.scratch, context.scratch, Mode::evaluate, stage_.recompute, stage_.moe, 1};
      model.evaluate(pass, token_loss);
      loss += sum(context, token_loss);
      result.targets += batch_.counted_targets();
    }
    result.lm_loss = loss / double(std::max<std::int64_t>(result.targets, 1));
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace af
