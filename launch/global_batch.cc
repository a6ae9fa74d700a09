#include "launch/global_batch.h"

#include <algorithm>

namespace af {

GlobalBatch::GlobalBatch(const Device& device, std::int64_t seq_length, std::int64_t micro_batch_size, std::int64_t micro_batches, int cp_ranks,
                         int cp_rank)
    : seq_length_(seq_length),
      micro_batch_size_(micro_batch_size),
      tokens_per_micro_batch_(seq_length * micro_batch_size),
      cp_ranks_(cp_ranks),
      cp_rank_(cp_rank),
      buffer_(device, std::size_t(3 * tokens_per_micro_batch_ / cp_ranks * micro_batches) * sizeof(std::int32_t)),
      documents_(std::size_t(micro_batches)),
      contexts_(std::size_t(micro_batches)) {
  auto* memory = static_cast<std::int32_t*>(buffer_.data());
  auto take = [&] {
    Tensor t(memory, DType::i32, {tokens_per_micro_batch_ / cp_ranks});
    memory += t.numel();
    return t;
  };
  for (std::int64_t i = 0; i < micro_batches; ++i) {
    MicroBatch batch;
    batch.tokens = take();
    batch.targets = take();
    batch.positions = take();
    batch.sequences = micro_batch_size;
    batches_.push_back(batch);
  }
}

void GlobalBatch::assign(const std::vector<PackedSequence>& sequences) {
  AF_CHECK(std::int64_t(sequences.size()) == micro_batches() * micro_batch_size_, "{} sequences for {} micro-batches of {}", sequences.size(),
           micro_batches(), micro_batch_size_);
  counted_targets_ = 0;
  sum_squared_lengths_ = 0;
  for (std::vector<AttentionSegment>& documents : documents_) documents.clear();
  const std::vector<Range> chunks = context_chunks(seq_length_, cp_ranks_, cp_rank_);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const PackedSequence& sequence = sequences[i];
    std::size_t m = i / std::size_t(micro_batch_size_);
    std::int64_t place = std::int64_t(i % std::size_t(micro_batch_size_)), at = place * seq_length_;
    AF_CHECK(std::int64_t(sequence.tokens.size()) == seq_length_, "a sequence of {} tokens, not {}", sequence.tokens.size(), seq_length_);
    auto copy = [&](const std::vector<std::int32_t>& from, const Tensor& to) {
      std::int32_t* next = to.as<std::int32_t>() + at / cp_ranks_;
      for (Range r : chunks) next = std::copy(from.begin() + r.begin, from.begin() + r.end, next);
    };
    copy(sequence.tokens, batches_[m].tokens);
    copy(sequence.targets, batches_[m].targets);
    copy(sequence.positions, batches_[m].positions);
    counted_targets_ += std::count_if(sequence.targets.begin(), sequence.targets.end(), [](std::int32_t t) { return t >= 0; });
    for (std::size_t d = 0; d + 1 < sequence.document_begins.size(); ++d) {
      std::int64_t begin = at + sequence.document_begins[d], end = at + sequence.document_begins[d + 1];
      documents_[m].push_back({begin, end, begin, end});
      sum_squared_lengths_ += double(end - begin) * double(end - begin);
    }
  }
  for (std::size_t m = 0; m < batches_.size(); ++m) {
    batches_[m].documents = documents_[m];
    if (cp_ranks_ == 1) continue;
    contexts_[m].make(documents_[m], micro_batch_size_, seq_length_, cp_ranks_, cp_rank_);
    batches_[m].context = &contexts_[m];
    batches_[m].documents = contexts_[m].segments;
  }
}

}  // namespace af
