// How documents are laid into sequences (design: decision 18), as a pure function of their lengths and a number.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace af {

enum class Packing {
  sequential,  // one after the other, cut where a sequence ends: no token is lost, none is masked
  best_fit,    // documents that fit are kept whole; gaps are filled by cutting over-long ones, else by masked tokens
};

// Tokens [offset, offset + count) of a document, which stand at `position` of the source's endless stream.
struct Piece {
  std::int64_t position, document, offset, count;
  bool operator==(const Piece&) const = default;
};

// Sequences as lists of pieces, each in the order of the stream.
class PackedPieces {
 public:
  PackedPieces(std::vector<Piece> pieces, std::vector<std::uint32_t> begins);  // begins [n + 1]: of each sequence, in `pieces`
  std::int64_t size() const { return std::int64_t(begins_.size()) - 1; }
  std::span<const Piece> operator[](std::int64_t sequence) const {
    return {pieces_.data() + begins_[std::size_t(sequence)], pieces_.data() + begins_[std::size_t(sequence) + 1]};
  }
  std::int64_t tokens(std::int64_t sequence) const;
  // What the sequences from `first` on hold, in the order of the stream; pieces of a document that touch are one again.
  std::vector<Piece> rest(std::int64_t first) const;

 private:
  std::vector<Piece> pieces_;
  std::vector<std::uint32_t> begins_;
};

// Every token of `pieces` (in the order of the stream) once. Only the last sequence may be short of seq_length.
PackedPieces pack_sequential(const std::vector<Piece>& pieces, std::int64_t seq_length);

// Best fit decreasing: the longest first, each into the fullest sequence that still takes it. Then the over-long ones are
// poured into the gaps, the widest first, and into further sequences. Which sequence comes when is shuffled by (seed, stream),
// so that a step's sequences are no more alike than the documents are. O(n log n).
PackedPieces pack_best_fit(const std::vector<Piece>& pieces, std::int64_t seq_length, std::uint64_t seed, std::uint64_t stream);

}  // namespace af
