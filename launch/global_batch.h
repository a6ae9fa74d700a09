// This rank's sequences of one optimizer step, laid out as micro-batches in the device's memory. With context parallelism all ranks of cp
// take the same sequences, and each its own chunks of them (parallel/context_parallel.h).
#pragma once
#include <vector>

#include "core/memory.h"
#include "data/batch_stream.h"
#include "models/pass.h"

namespace af {

class GlobalBatch {
 public:
  // `micro_batches` of `micro_batch_size` sequences of `seq_length` tokens.
  GlobalBatch(const Device& device, std::int64_t seq_length, std::int64_t micro_batch_size, std::int64_t micro_batches, int cp_ranks = 1,
              int cp_rank = 0);
  // Takes the tokens of sequences.size() == micro_batches * micro_batch_size sequences.
  void assign(const std::vector<PackedSequence>& sequences);

  std::int64_t micro_batches() const { return std::int64_t(batches_.size()); }
  const MicroBatch& operator[](std::int64_t i) const { return batches_[std::size_t(i)]; }
  // Of whole sequences, also where this rank has a part of each.
  std::int64_t counted_targets() const { return counted_targets_; }
  double sum_squared_lengths() const { return sum_squared_lengths_; }  // of documents: what attention's FLOPs depend on
  std::int64_t tokens() const { return micro_batches() * tokens_per_micro_batch_; }

 private:
  std::int64_t seq_length_, micro_batch_size_, tokens_per_micro_batch_;
  int cp_ranks_, cp_rank_;
  Buffer buffer_;
  std::vector<MicroBatch> batches_;
  std::vector<std::vector<AttentionSegment>> documents_;
  std::vector<ContextPlan> contexts_;
  std::int64_t counted_targets_ = 0;
  double sum_squared_lengths_ = 0;
};

}  // namespace af
