#include "launch/validation.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

namespace af {

namespace {

constexpr std::int64_t kFirstPositions = 64;  // what the first bucket holds

// 0 for [0, 64), 1 for [64, 128), 2 for [128, 256), ...
std::size_t bucket_of(std::int64_t position) { return std::size_t(std::bit_width(std::uint64_t(position / kFirstPositions))); }

SequenceStream open_source(const DataSource& source, std::int64_t seq_length) {
  return SequenceStream({{source.path, source.name, 1}}, seq_length, 0, {}, Order::sequential);
}

template <class Part>
std::vector<Part> with_targets(std::vector<Part> parts) {
  std::erase_if(parts, [](const Part& part) { return part.targets == 0; });
  return parts;
}

}  // namespace

LossTable::LossTable(std::int64_t seq_length) : by_role_(kRoleNames.size()), by_position_(bucket_of(seq_length - 1) + 1) {
  for (std::size_t i = 0; i < by_role_.size(); ++i) by_role_[i].role = Role(i);
  for (std::size_t i = 0; i < by_position_.size(); ++i) {
    by_position_[i].begin = i == 0 ? 0 : kFirstPositions << (i - 1);
    by_position_[i].end = std::min(seq_length, kFirstPositions << i);
  }
}

void LossTable::add(const PackedSequence& sequence, const Tensor& token_loss) {
  AF_CHECK(token_loss.numel() == std::int64_t(sequence.targets.size()), "{} losses of {} tokens", token_loss.numel(), sequence.targets.size());
  for (std::size_t i = 0; i < sequence.targets.size(); ++i) {
    if (sequence.targets[i] < 0) continue;
    const double loss = token_loss.dtype == DType::f64 ? token_loss.as<double>()[i] : double(token_loss.as<float>()[i]);
    total_.add(loss);
    by_role_[sequence.roles[i]].add(loss);
    by_position_[bucket_of(sequence.positions[i])].add(loss);
  }
}

ValidationResult LossTable::result() const {
  ValidationResult result;
  result.total = total_;
  result.by_role = with_targets(by_role_);
  if (result.by_role.size() == 1 && result.by_role[0].role == Role::other) result.by_role.clear();
  result.by_position = with_targets(by_position_);
  return result;
}

Validation::Validation(const ValidationConfig& config, const StageConfig& stage, const Device& device)
    : config_(config), stage_(stage), batch_(device, stage.seq_length, stage.micro_batch_size, 1) {
  for (const DataSource& source : config.data)
    sequences_.push_back(std::min(config.eval_iters * stage.global_batch_size, open_source(source, stage.seq_length).sequences_per_epoch(0)));
}

std::vector<ValidationResult> Validation::run(const Context& context, Qwen3Model& model) {
  std::vector<ValidationResult> results;
  std::vector<PackedSequence> sequences;
  for (std::size_t i = 0; i < config_.data.size(); ++i) {
    LossTable table(stage_.seq_length);
    SequenceStream stream = open_source(config_.data[i], stage_.seq_length);
    for (std::int64_t begin = 0; begin < sequences_[i]; begin += stage_.micro_batch_size) {
      stream.next(stage_.micro_batch_size, 0, 1, sequences);
      for (std::int64_t j = std::max<std::int64_t>(sequences_[i] - begin, 0); j < stage_.micro_batch_size; ++j)  // fills up the last micro-batch
        std::fill(sequences[std::size_t(j)].targets.begin(), sequences[std::size_t(j)].targets.end(), -1);
      batch_.assign(sequences);
      Arena::Scope scope(context.scratch);
      Tensor token_loss = context.scratch.tensor({batch_.tokens()}, accumulator_of(model.parameters().dtype()));
      Pass pass{context, batch_[0], context.scratch, context.scratch, Mode::evaluate, stage_.recompute, stage_.moe, 1};
      model.evaluate(pass, token_loss);
      for (std::int64_t j = 0; j < stage_.micro_batch_size; ++j)
        table.add(sequences[std::size_t(j)], token_loss.slice_rows(j * stage_.seq_length, (j + 1) * stage_.seq_length));
    }
    ValidationResult result = table.result();
    result.name = config_.data[i].name;
    result.sequences = sequences_[i];
    results.push_back(std::move(result));
  }
  return results;
}

void add_to(JsonLine& line, const ValidationResult& result) {
  line.add("source", result.name).add("lm_loss", result.total.mean()).add("targets", result.total.targets).add("sequences", result.sequences);
  JsonLine roles;
  for (const RoleLoss& part : result.by_role)
    roles.add(kRoleNames[std::size_t(part.role)], JsonLine().add("lm_loss", part.mean()).add("targets", part.targets));
  std::vector<JsonLine> positions;
  for (const PositionLoss& part : result.by_position)
    positions.push_back(JsonLine().add("begin", part.begin).add("end", part.end).add("lm_loss", part.mean()).add("targets", part.targets));
  if (!result.by_role.empty()) line.add("by_role", roles);
  line.add("by_position", positions);
}

std::string log_line(const ValidationResult& result, std::int64_t iteration) {
  std::string out = fmt::format(" validation {} at iteration {} | lm loss: {:.6E} | lm loss PPL: {:.6E} | targets: {} |", result.name, iteration,
                                result.total.mean(), std::exp(result.total.mean()), result.total.targets);
  for (const RoleLoss& part : result.by_role) out += fmt::format(" {}: {:.4f} |", kRoleNames[std::size_t(part.role)], part.mean());
  for (const PositionLoss& part : result.by_position) out += fmt::format(" positions {}-{}: {:.4f} |", part.begin, part.end, part.mean());
  return out;
}

}  // namespace af
