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

void LossTable::add(const PackedSequence& sequence, const Tensor& token_loss, std::int64_t begin) {
  AF_CHECK(begin + token_loss.numel() <= std::int64_t(sequence.targets.size()), "{} losses from token {} of {}", token_loss.numel(), begin,
           sequence.targets.size());
  for (std::int64_t i = 0; i < token_loss.numel(); ++i) {
    const std::size_t token = std::size_t(begin + i);
    if (sequence.targets[token] < 0) continue;
    const double loss = token_loss.dtype == DType::f64 ? token_loss.as<double>()[i] : double(token_loss.as<float>()[i]);
    total_.add(loss);
    by_role_[sequence.roles[token]].add(loss);
    by_position_[bucket_of(sequence.positions[token])].add(loss);
  }
}

void LossTable::reduce_over(const Comm& world) {
  if (world.size() == 1) return;
  std::vector<LossSum*> sums = {&total_};
  for (RoleLoss& part : by_role_) sums.push_back(&part);
  for (PositionLoss& part : by_position_) sums.push_back(&part);
  std::vector<double> numbers;
  for (const LossSum* part : sums) numbers.insert(numbers.end(), {part->loss, double(part->targets)});
  world.all_reduce(Tensor(numbers.data(), DType::f64, {std::int64_t(numbers.size())})).wait();
  for (std::size_t i = 0; i < sums.size(); ++i) {
    sums[i]->loss = numbers[2 * i];
    sums[i]->targets = std::int64_t(numbers[2 * i + 1]);
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

Validation::Validation(const ValidationConfig& config, const StageConfig& stage, const Device& device, const Mesh& mesh)
    : config_(config), stage_(stage), batch_(device, stage.seq_length, stage.micro_batch_size, 1, mesh.shape.cp, mesh.position.cp) {
  for (const DataSource& source : config.data)
    sequences_.push_back(std::min(config.eval_iters * stage.global_batch_size, open_source(source, stage.seq_length).sequences_per_epoch(0)));
}

// The losses of this rank's tokens: its chunks of each sequence, and with sequence parallelism its part of these.
void Validation::add(ParallelModel& model, const std::vector<PackedSequence>& sequences, const Tensor& token_loss, LossTable& table) const {
  const Mesh& mesh = model.mesh();
  if (!mesh.last_stage() || (!mesh.shape.sequence_parallel && mesh.position.tp > 0)) return;
  const std::int64_t first = mesh.shape.sequence_parallel ? token_loss.numel() * mesh.position.tp : 0, end = first + token_loss.numel();
  std::int64_t row = 0;  // of the tokens of this rank of cp
  for (const PackedSequence& sequence : sequences)
    for (Range chunk : context_chunks(stage_.seq_length, mesh.shape.cp, mesh.position.cp)) {
      const std::int64_t from = std::max(row, first), to = std::min(row + chunk.size(), end);
      if (from < to) table.add(sequence, token_loss.slice_rows(from - first, to - first), chunk.begin + from - row);
      row += chunk.size();
    }
}

std::optional<std::vector<ValidationResult>> Validation::run(ParallelModel& model, const std::function<bool()>& stop) {
  std::vector<ValidationResult> results;
  std::vector<PackedSequence> sequences;
  const int dp = model.mesh().shape.dp, dp_rank = model.mesh().position.dp;
  for (std::size_t i = 0; i < config_.data.size(); ++i) {
    LossTable table(stage_.seq_length);
    SequenceStream stream = open_source(config_.data[i], stage_.seq_length);
    for (std::int64_t begin = 0; begin < sequences_[i]; begin += stage_.micro_batch_size * dp) {
      if (stop()) return std::nullopt;
      stream.next(stage_.micro_batch_size * dp, dp_rank, dp, sequences);
      for (PackedSequence& sequence : sequences)  // what fills up the last micro-batches does not count
        if (sequence.global_index >= sequences_[i]) std::fill(sequence.targets.begin(), sequence.targets.end(), -1);
      batch_.assign(sequences);
      Arena scratch(model.context().device, "validation");
      Tensor token_loss = scratch.tensor({model.local_tokens(batch_[0])}, accumulator_of(model.parameters().dtype()));
      model.evaluate(batch_[0], {stage_.recompute, stage_.moe}, token_loss);
      add(model, sequences, token_loss, table);
    }
    table.reduce_over(model.mesh().world);
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
