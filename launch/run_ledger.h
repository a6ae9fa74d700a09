// data_ledger.jsonl in a run's directory: where the data stood, so that any step's documents can be named (af_data replay).
//
// An entry says all that the order of the data depends on: the stage's mix, seed, lengths and packing, and the ledger at one
// iteration. One is written when a stage begins or goes on, and then every few thousand sequences; from the last one before a
// step a short walk without reading a token leads to it. A search by halves finds that entry, so a replay takes no longer at
// the end of a long run. What a resumed run does again is cut off first: the file tells the steps that led to the weights.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/batch_stream.h"
#include "data/json.h"

namespace af {

struct LedgerEntry {
  std::int64_t iteration = 0;       // done before this entry; its stream is what step iteration + 1 begins with
  std::int64_t last_iteration = 0;  // of the stage
  std::string stage;
  std::uint64_t seed = 0;
  std::int64_t seq_length = 0, global_batch_size = 0;
  Packing packing = Packing::sequential;
  std::vector<SourceSpec> sources;  // the weights as configured
  StreamState stream;
  bool operator==(const LedgerEntry&) const = default;
};

class RunLedger {
 public:
  explicit RunLedger(const std::string& output_dir);
  // A stage begins or goes on: what the file says from entry.iteration on is forgotten.
  void begin(LedgerEntry entry);
  // A step has been taken.
  void step(std::int64_t iteration, const StreamState& stream);
  const std::string& path() const { return path_; }
  // Why entries wait (the disk is full); "": none does.
  const std::string& error() const { return error_; }

 private:
  void write();
  std::string path_, error_;
  LedgerEntry entry_;                 // the last one
  std::vector<LedgerEntry> waiting_;  // for room on the disk
};

struct StepContents {
  LedgerEntry entry;  // the one that the walk began from
  std::vector<SequenceContents> sequences;
};
// What step number `step` (from 1) was, or will be, made of. UserError where the run has no such step yet.
StepContents replay_step(const std::string& output_dir, std::int64_t step);

}  // namespace af
