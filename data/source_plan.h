// Which tokens of one source each of its sequences is made of: follows from (seed, source, position) and the packing, without
// reading a token.
//
// Sequential packing needs no memory: sequence n of the stream is its tokens [n S, n S + S). Best fit lays out one *window* of
// the stream at a time: as many documents as fill 256 sequences, never more than one epoch's. All of a window's tokens are
// given before the next begins. Where a stage with another packing or seq_length begins in the middle of a window, what is
// left of the window is laid out anew; so the ledger needs only the window's beginning and how many sequences each layout gave.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "data/packing.h"
#include "data/source_order.h"
#include "data/stream_state.h"

namespace af {

class SourcePlan {
 public:
  // offsets: document_offsets [D + 1] with at least one document; must outlive this.
  SourcePlan(const std::vector<std::int64_t>& offsets, std::uint64_t seed, const std::string& name, Order order);

  struct Window;  // the layout of a window
  // A place between two sequences.
  struct Cursor {
    std::int64_t tokens = 0;               // given so far; the position in the stream, where no window is under way
    std::int64_t padding = 0;              // masked tokens given so far
    PackingWindow window;                  // no parts: none under way
    std::shared_ptr<const Window> layout;  // of `window`; made where it is missing
  };
  // What one sequence is made of: that sequence of the layout, if there is one, then the stream from `position` on, if >= 0,
  // then masked tokens.
  struct Pick {
    std::shared_ptr<const Window> layout;
    std::int64_t sequence = 0, position = 0;
  };

  // From here on sequences of this kind. UserError where the cursor cannot be (a damaged ledger).
  void change(Cursor& cursor, Packing packing, std::int64_t seq_length) const;
  Pick advance(Cursor& cursor, Packing packing, std::int64_t seq_length) const;
  void pieces(const Pick& pick, std::int64_t seq_length, std::vector<Piece>& out) const;

  std::int64_t tokens_per_epoch() const { return offsets_.back(); }
  // Documents given to their end since the run's beginning; those of a window count when it is done.
  std::int64_t documents_done(const Cursor& cursor) const;

 private:
  std::shared_ptr<const Window> layout(const PackingWindow& window) const;
  std::vector<Piece> documents_from(std::int64_t position, std::int64_t seq_length) const;
  PackedPieces pack(const std::vector<Piece>& pieces, const PackingWindow& window, std::size_t part) const;

  const std::vector<std::int64_t>& offsets_;
  std::uint64_t seed_;
  std::string name_;
  SourceOrder order_;
  mutable std::mutex mutex_;                         // guards recent_
  mutable std::shared_ptr<const Window> recent_[2];  // those asked for last: the reading thread is ahead of the caller's
};

}  // namespace af
