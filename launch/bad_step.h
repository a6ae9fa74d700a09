// A step whose loss or gradient is not finite is skipped; this names what it was made of.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "launch/json_line.h"
#include "launch/parallel_model.h"
#include "launch/run_ledger.h"

namespace af {

// The numbers (PackedSequence::global_index) of the step's sequences that stand in a micro-batch without a finite loss; none: all losses
// are finite, and a gradient is not. `own`: this rank's sequences of the step, which began with number `first` and has `count`.
// Collective over the world; the same on all ranks.
std::vector<std::int64_t> bad_sequences(const ParallelModel& model, const std::vector<PackedSequence>& own, std::int64_t micro_batch_size,
                                        std::int64_t first, std::int64_t count);

// Those of `contents` that are named, all where none is: "a: documents 3, 17; b: document 5", and for an event.
std::string documents_text(const StepContents& contents, const std::vector<std::int64_t>& named);
std::vector<JsonLine> documents_json(const StepContents& contents, const std::vector<std::int64_t>& named);

}  // namespace af
