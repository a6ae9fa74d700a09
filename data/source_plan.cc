#include "data/source_plan.h"

#include <algorithm>

#include "core/error.h"
#include "core/random.h"

namespace af {
namespace {

constexpr std::int64_t kWindowSequences = 256;                  // what is left over in a window's last sequence is 1 / 256 at most
constexpr std::size_t kWindowDocuments = std::size_t{1} << 20;  // bounds the memory: 32 bytes each

}  // namespace

struct SourcePlan::Window {
  std::int64_t begin, end;  // positions in the stream
  PackedPieces sequences;
};

SourcePlan::SourcePlan(const std::vector<std::int64_t>& offsets, std::uint64_t seed, const std::string& name, Order order)
    : offsets_(offsets), seed_(seed), name_(name), order_(offsets, seed, name, order) {}

void SourcePlan::change(Cursor& cursor, Packing packing, std::int64_t seq_length) const {
  std::vector<WindowPart>& parts = cursor.window.parts;
  cursor.layout = nullptr;
  if (parts.empty()) return;
  auto goes_on = [&] { return parts.back().packing == packing && parts.back().seq_length == seq_length; };
  if (!goes_on() && parts.back().sequences == 0) parts.pop_back();
  if (!parts.empty() && !goes_on()) parts.push_back({packing, seq_length, 0});
  if (parts.empty()) cursor.window = {};
}

SourcePlan::Pick SourcePlan::advance(Cursor& cursor, Packing packing, std::int64_t seq_length) const {
  PackingWindow& window = cursor.window;
  if (window.parts.empty() && packing == Packing::sequential) {
    cursor.tokens += seq_length;
    return {nullptr, 0, cursor.tokens - seq_length};
  }
  if (window.parts.empty()) window = {cursor.tokens, {{packing, seq_length, 0}}}, cursor.layout = nullptr;
  if (!cursor.layout) cursor.layout = layout(window);
  std::int64_t& given = window.parts.back().sequences;
  const PackedPieces& sequences = cursor.layout->sequences;
  if (given >= sequences.size()) user_error("{}: the ledger is damaged: {} sequences given of a window of {}", name_, given, sequences.size());
  Pick pick{cursor.layout, given++, packing == Packing::sequential ? cursor.layout->end : -1};
  const std::int64_t tokens = packing == Packing::sequential ? seq_length : sequences.tokens(pick.sequence);
  cursor.tokens += tokens;
  cursor.padding += seq_length - tokens;
  if (given == sequences.size()) window = {}, cursor.layout = nullptr;
  return pick;
}

void SourcePlan::pieces(const Pick& pick, std::int64_t seq_length, std::vector<Piece>& out) const {
  out.clear();
  std::int64_t room = seq_length;
  if (pick.layout) {
    for (const Piece& piece : pick.layout->sequences[pick.sequence]) out.push_back(piece), room -= piece.count;
  }
  if (pick.position < 0 || room == 0) return;
  SourceOrder::Place place = order_.locate(pick.position);
  for (std::int64_t position = pick.position;; order_.to_next_document(place)) {
    const std::int64_t length = offsets_[std::size_t(place.document) + 1] - offsets_[std::size_t(place.document)];
    const std::int64_t count = std::min(room, length - place.offset);
    out.push_back({position, place.document, place.offset, count});
    position += count;
    if ((room -= count) == 0) return;
  }
}

std::int64_t SourcePlan::documents_done(const Cursor& cursor) const {
  const SourceOrder::Place place = order_.locate(cursor.window.parts.empty() ? cursor.tokens : cursor.window.begin);
  return place.epoch * (std::int64_t(offsets_.size()) - 1) + place.documents_done;
}

std::shared_ptr<const SourcePlan::Window> SourcePlan::layout(const PackingWindow& window) const {
  std::lock_guard lock(mutex_);  // held while one is made: the other thread wants the same
  for (const std::shared_ptr<const Window>& recent : recent_) {
    if (recent && recent->begin == window.begin) return recent;  // the earlier parts are the same: they changed before this began
  }
  const std::vector<Piece> documents = documents_from(window.begin, window.parts.front().seq_length);
  PackedPieces sequences = pack(documents, window, 0);
  for (std::size_t part = 1; part < window.parts.size(); ++part) {
    const std::int64_t given = window.parts[part - 1].sequences;
    if (given >= sequences.size()) user_error("{}: the ledger is damaged: {} sequences given of a window of {}", name_, given, sequences.size());
    sequences = pack(sequences.rest(given), window, part);
  }
  recent_[1] = recent_[0];
  const Piece& last = documents.back();
  return recent_[0] = std::make_shared<Window>(Window{window.begin, last.position + last.count, std::move(sequences)});
}

// The documents of the window that begins at `position`: those that fit into the tokens of its sequences whole (so that the
// last sequence is filled too); only one that is over-long anyway is cut there.
std::vector<Piece> SourcePlan::documents_from(std::int64_t position, std::int64_t seq_length) const {
  std::vector<Piece> documents;
  SourceOrder::Place place = order_.locate(position);
  const std::int64_t epoch = place.epoch;
  for (std::int64_t room = kWindowSequences * seq_length; room > 0 && place.epoch == epoch && documents.size() < kWindowDocuments;
       order_.to_next_document(place)) {
    std::int64_t count = offsets_[std::size_t(place.document) + 1] - offsets_[std::size_t(place.document)] - place.offset;
    if (count > room && count <= seq_length) break;
    count = std::min(count, room);
    documents.push_back({position, place.document, place.offset, count});
    position += count, room -= count;
  }
  return documents;
}

PackedPieces SourcePlan::pack(const std::vector<Piece>& pieces, const PackingWindow& window, std::size_t part) const {
  const WindowPart& how = window.parts[part];
  if (how.packing == Packing::sequential) return pack_sequential(pieces, how.seq_length);
  return pack_best_fit(pieces, how.seq_length, seed_, hash_name(fmt::format("packing of {} at token {}, part {}", name_, window.begin, part)));
}

}  // namespace af
