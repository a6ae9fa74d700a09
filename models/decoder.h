// A model that continues sequences: several of them side by side, each with its own tokens in the cache. One forward takes any number of
// new tokens of any of them, as packed documents: a prompt and single tokens of others may go together. What a sequence gets does not
// depend, to the last bit, on how its tokens are cut into calls, nor on what stands beside it.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "models/kv_cache.h"
#include "models/qwen3.h"

namespace af {

class Decoder {
 public:
  // A sequence of at most capacities[i] tokens each; the model must be whole, on one rank, with RoPE for as many positions.
  Decoder(Qwen3Model& model, const Context& context, std::span<const std::int64_t> capacities);

  struct Piece {  // new tokens of a sequence; at most one piece of each in a call
    int sequence;
    std::span<const std::int32_t> tokens;
  };
  // Appends, and gives logits [n, V] (accumulator type) of n of the new tokens: rows counts them over all pieces, one after the other.
  void logits(std::span<const Piece> pieces, std::span<const std::int32_t> rows, const Tensor& logits);
  // Appends, and gives the cross-entropy of each new token's output against `targets` (-1: 0), [T] in the accumulator type.
  void losses(std::span<const Piece> pieces, std::span<const std::int32_t> targets, const Tensor& token_loss);

  std::int64_t length(int sequence) const { return sequences_[std::size_t(sequence)].length; }
  std::int64_t capacity(int sequence) const { return sequences_[std::size_t(sequence)].capacity; }
  void truncate(int sequence, std::int64_t length);  // forgets what comes after
  DType accumulator() const { return accumulator_of(model_.parameters().dtype()); }

 private:
  struct Sequence {
    std::int64_t begin, capacity, length;  // its rows in the cache
  };
  MicroBatch append(std::span<const Piece> pieces);
  Pass pass(const MicroBatch& batch);

  Qwen3Model& model_;
  Context context_;
  std::vector<Sequence> sequences_;
  KeyValueCache cache_;
  std::vector<std::int32_t> tokens_, targets_, positions_;  // of the call
  std::vector<AttentionSegment> documents_;
  RecomputeSettings recompute_;
  BalanceSettings balance_;
};

}  // namespace af
