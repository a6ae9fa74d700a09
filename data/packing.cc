#include "data/packing.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "core/error.h"
#include "core/random.h"

namespace af {
namespace {

struct Placed {
  std::uint32_t sequence;
  Piece piece;
};

// Sequence number i comes as number order[i].
PackedPieces arranged(const std::vector<Placed>& placed, const std::vector<std::uint32_t>& order) {
  std::vector<std::uint32_t> begins(order.size() + 1, 0);
  for (const Placed& p : placed) ++begins[order[p.sequence] + 1];
  std::partial_sum(begins.begin(), begins.end(), begins.begin());
  std::vector<std::uint32_t> ends(begins.begin(), begins.end() - 1);
  std::vector<Piece> pieces(placed.size());
  for (const Placed& p : placed) pieces[ends[order[p.sequence]]++] = p.piece;
  for (std::size_t i = 0; i + 1 < begins.size(); ++i) {
    std::sort(pieces.begin() + begins[i], pieces.begin() + begins[i + 1], [](const Piece& a, const Piece& b) { return a.position < b.position; });
  }
  return PackedPieces(std::move(pieces), std::move(begins));
}

std::vector<std::uint32_t> shuffled(std::size_t count, std::uint64_t seed, std::uint64_t stream) {
  std::vector<std::uint32_t> order(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t j = std::size_t(random_below(seed, stream, i, i + 1));
    order[i] = order[j];
    order[j] = std::uint32_t(i);
  }
  return order;
}

}  // namespace

PackedPieces::PackedPieces(std::vector<Piece> pieces, std::vector<std::uint32_t> begins) : pieces_(std::move(pieces)), begins_(std::move(begins)) {
  AF_CHECK(!begins_.empty() && begins_.back() == pieces_.size(), "{} pieces", pieces_.size());
}

std::int64_t PackedPieces::tokens(std::int64_t sequence) const {
  std::int64_t sum = 0;
  for (const Piece& piece : (*this)[sequence]) sum += piece.count;
  return sum;
}

std::vector<Piece> PackedPieces::rest(std::int64_t first) const {
  std::vector<Piece> pieces(pieces_.begin() + begins_[std::size_t(first)], pieces_.end()), merged;
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.position < b.position; });
  for (const Piece& piece : pieces) {
    const bool goes_on = !merged.empty() && merged.back().document == piece.document && merged.back().offset + merged.back().count == piece.offset &&
                         merged.back().position + merged.back().count == piece.position;
    goes_on ? void(merged.back().count += piece.count) : merged.push_back(piece);
  }
  return merged;
}

PackedPieces pack_sequential(const std::vector<Piece>& pieces, std::int64_t seq_length) {
  std::vector<Piece> cut;
  std::vector<std::uint32_t> begins;
  std::int64_t room = 0;
  for (Piece piece : pieces) {
    while (piece.count > 0) {
      if (room == 0) begins.push_back(std::uint32_t(cut.size())), room = seq_length;
      const std::int64_t count = std::min(room, piece.count);
      cut.push_back({piece.position, piece.document, piece.offset, count});
      piece.position += count, piece.offset += count, piece.count -= count, room -= count;
    }
  }
  begins.push_back(std::uint32_t(cut.size()));
  return PackedPieces(std::move(cut), std::move(begins));
}

PackedPieces pack_best_fit(const std::vector<Piece>& pieces, std::int64_t seq_length, std::uint64_t seed, std::uint64_t stream) {
  AF_CHECK(pieces.size() < UINT32_MAX / 2, "{} documents in one window", pieces.size());
  std::vector<std::uint32_t> by_length, over_long;
  for (std::uint32_t i = 0; i < pieces.size(); ++i) (pieces[i].count <= seq_length ? by_length : over_long).push_back(i);
  std::stable_sort(by_length.begin(), by_length.end(), [&](std::uint32_t a, std::uint32_t b) { return pieces[a].count > pieces[b].count; });

  std::vector<Placed> placed;
  placed.reserve(pieces.size());
  using Gap = std::pair<std::int64_t, std::uint32_t>;  // tokens free, sequence
  std::set<Gap> gaps;
  std::uint32_t sequences = 0;
  for (std::uint32_t i : by_length) {
    const std::int64_t count = pieces[i].count;
    auto tightest = gaps.lower_bound({count, 0});
    if (tightest == gaps.end()) tightest = gaps.insert({seq_length, sequences++}).first;
    placed.push_back({tightest->second, pieces[i]});
    auto gap = gaps.extract(tightest);  // the node goes on: no allocation per document
    gap.value().first -= count;
    if (gap.value().first > 0) gaps.insert(std::move(gap));
  }

  for (std::uint32_t i : over_long) {
    Piece piece = pieces[i];
    while (piece.count > 0) {
      if (gaps.empty()) gaps.insert({seq_length, sequences++});
      auto gap = gaps.extract(std::prev(gaps.end()));
      const std::int64_t count = std::min(gap.value().first, piece.count);
      placed.push_back({gap.value().second, {piece.position, piece.document, piece.offset, count}});
      piece.position += count, piece.offset += count, piece.count -= count;
      gap.value().first -= count;
      if (gap.value().first > 0) gaps.insert(std::move(gap));
    }
  }
  return arranged(placed, shuffled(sequences, seed, stream));
}

}  // namespace af
