// Validation: the mean loss of held-out sources, each by itself, always on the same sequences; also by the role of the target and
// by how much context the model had (does the second half of 128K help?).
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/document.h"
#include "launch/config.h"
#include "launch/global_batch.h"
#include "launch/json_line.h"
#include "launch/parallel_model.h"

namespace af {

struct LossSum {
  double loss = 0;  // nats, over the counted targets
  std::int64_t targets = 0;
  void add(double token_loss) { loss += token_loss, ++targets; }
  double mean() const { return targets > 0 ? loss / double(targets) : 0; }
};

struct RoleLoss : LossSum {
  Role role{};  // of the target
};

// Of tokens that see `begin` to `end - 1` tokens before them, all in their document and sequence. [0, 64), [64, 128), [128, 256), ...
struct PositionLoss : LossSum {
  std::int64_t begin = 0, end = 0;
};

struct ValidationResult {
  std::string name;
  std::int64_t sequences = 0;
  LossSum total;
  std::vector<RoleLoss> by_role;          // those with targets, in the order of Role; empty: the source names no roles
  std::vector<PositionLoss> by_position;  // those with targets
};

// Adds up the losses of sequences. Sums in fp64, in the order of the tokens.
class LossTable {
 public:
  explicit LossTable(std::int64_t seq_length);
  // token_loss [n] fp32 or fp64: of the sequence's tokens from `begin` on.
  void add(const PackedSequence& sequence, const Tensor& token_loss, std::int64_t begin = 0);
  // Adds up the tables of all ranks, each token's loss being in one of them. Collective.
  void reduce_over(const Comm& world);
  ValidationResult result() const;

 private:
  LossSum total_;
  std::vector<RoleLoss> by_role_;
  std::vector<PositionLoss> by_position_;
};

// The first eval_iters * global_batch_size sequences of each source (fewer where it has fewer), in file order.
class Validation {
 public:
  Validation(const ValidationConfig& config, const StageConfig& stage, const Device& device, const Mesh& mesh);
  // Collective; the same on all ranks. Between micro-batches it asks stop(), which says the same on all ranks: then there are no results.
  std::optional<std::vector<ValidationResult>> run(ParallelModel& model, const std::function<bool()>& stop);

 private:
  void add(ParallelModel& model, const std::vector<PackedSequence>& sequences, const Tensor& token_loss, LossTable& table) const;

  const ValidationConfig& config_;
  const StageConfig& stage_;
  std::vector<std::int64_t> sequences_;  // of each source
  GlobalBatch batch_;
};

// For the event `validation` of metrics.jsonl, and for the log.
void add_to(JsonLine& line, const ValidationResult& result);
std::string log_line(const ValidationResult& result, std::int64_t iteration);

}  // namespace af
