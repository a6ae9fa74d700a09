#include "models/decoder.h"

#include <numeric>

namespace af {

Decoder::Decoder(Qwen3Model& model, const Context& context, std::span<const std::int64_t> capacities)
    : model_(model),
      context_(context),
      cache_(model.config(), context.device, model.parameters().dtype(), std::accumulate(capacities.begin(), capacities.end(), std::int64_t(0))) {
  std::int64_t begin = 0;
  for (std::int64_t capacity : capacities) {
    sequences_.push_back({begin, capacity, 0});
    begin += capacity;
  }
}

void Decoder::truncate(int sequence, std::int64_t length) {
  Sequence& s = sequences_[std::size_t(sequence)];
  AF_CHECK(0 <= length && length <= s.length, "sequence {} of {} tokens cut to {}", sequence, s.length, length);
  s.length = length;
}

MicroBatch Decoder::append(std::span<const Piece> pieces) {
  tokens_.clear();
  positions_.clear();
  documents_.clear();
  for (const Piece& piece : pieces) {
    Sequence& s = sequences_[std::size_t(piece.sequence)];
    const std::int64_t first = std::int64_t(tokens_.size()), count = std::int64_t(piece.tokens.size());
    AF_CHECK(s.length + count <= s.capacity, "sequence {} has {} tokens and room for {}: {} more", piece.sequence, s.length, s.capacity, count);
    for (std::int64_t i = 0; i < count; ++i) positions_.push_back(std::int32_t(s.length + i));
    tokens_.insert(tokens_.end(), piece.tokens.begin(), piece.tokens.end());
    s.length += count;
    documents_.push_back({first, first + count, s.begin, s.begin + s.length});
  }
  targets_.resize(tokens_.size(), -1);
  const Shape shape = {std::int64_t(tokens_.size())};
  return {Tensor(tokens_.data(), DType::i32, shape), Tensor(targets_.data(), DType::i32, shape), Tensor(positions_.data(), DType::i32, shape), 1,
          documents_};
}

Pass Decoder::pass(const MicroBatch& batch) {
  Pass pass{context_, batch, context_.scratch, context_.scratch, Mode::evaluate, recompute_, balance_};
  pass.cache = &cache_;
  return pass;
}

void Decoder::logits(std::span<const Piece> pieces, std::span<const std::int32_t> rows, const Tensor& logits) {
  const MicroBatch batch = append(pieces);
  std::vector<std::int32_t> chosen(rows.begin(), rows.end());
  model_.logits_of(pass(batch), Tensor(chosen.data(), DType::i32, {std::int64_t(chosen.size())}), logits);
}

void Decoder::losses(std::span<const Piece> pieces, std::span<const std::int32_t> targets, const Tensor& token_loss) {
  targets_.assign(targets.begin(), targets.end());
  const MicroBatch batch = append(pieces);
  AF_CHECK(targets.size() == tokens_.size(), "{} targets for {} tokens", targets.size(), tokens_.size());
  model_.evaluate(pass(batch), token_loss);
}

}  // namespace af
