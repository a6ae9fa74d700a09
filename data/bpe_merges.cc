#include "data/bpe_merges.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "core/error.h"

namespace af {
namespace {

constexpr std::uint32_t kNone = 0xffffffff;  // the rank of a pair that does not merge; also: no symbol
constexpr std::size_t kShortWord = 48;       // bytes; above it a queue is quicker than looking at all pairs each time

std::uint64_t hash(std::uint32_t left, std::uint32_t right) { return (std::uint64_t(left) << 32 | right) * 0x9e3779b97f4a7c15; }

}  // namespace

BpeMerges::BpeMerges(const std::array<std::uint32_t, 256>& byte_tokens, std::size_t most)
    : byte_tokens_(byte_tokens),
      slots_(std::bit_ceil(std::max<std::size_t>(2 * most, 2)), Slot{0, 0, kNone, 0}),
      shift_(64 - std::countr_zero(slots_.size())) {}

inline const BpeMerges::Slot& BpeMerges::find(std::uint32_t left, std::uint32_t right) const {
  std::size_t mask = slots_.size() - 1, at = (hash(left, right) >> shift_) & mask;
  while (slots_[at].rank != kNone && (slots_[at].left != left || slots_[at].right != right)) at = (at + 1) & mask;
  return slots_[at];
}

bool BpeMerges::add(const BpeMerge& merge) {
  Slot& slot = const_cast<Slot&>(find(merge.left, merge.right));
  if (slot.rank != kNone) return false;
  AF_CHECK(2 * (size_ + 1) <= slots_.size(), "more than {} merges", slots_.size() / 2);
  slot = {merge.left, merge.right, size_++, merge.result};
  return true;
}

void BpeMerges::encode(std::string_view word, Buffers& buffers, std::vector<std::uint32_t>& out) const {
  word.size() <= kShortWord ? encode_short(word, out) : encode_long(word, buffers, out);
}

void BpeMerges::encode_short(std::string_view word, std::vector<std::uint32_t>& out) const {
  std::uint32_t symbols[kShortWord], ranks[kShortWord];  // ranks[i]: of the pair (i, i + 1)
  std::size_t count = word.size();
  for (std::size_t i = 0; i < count; ++i) symbols[i] = byte_tokens_[static_cast<unsigned char>(word[i])];
  auto rank_at = [&](std::size_t i) { return find(symbols[i], symbols[i + 1]).rank; };
  for (std::size_t i = 0; i + 1 < count; ++i) ranks[i] = rank_at(i);
  while (count > 1) {
    std::size_t best = std::size_t(std::min_element(ranks, ranks + count - 1) - ranks);  // the leftmost
    if (ranks[best] == kNone) break;
    symbols[best] = find(symbols[best], symbols[best + 1]).result;
    std::copy(symbols + best + 2, symbols + count, symbols + best + 1);
    --count;
    std::copy(ranks + best + 1, ranks + count, ranks + best);
    if (best + 1 < count) ranks[best] = rank_at(best);
    if (best > 0) ranks[best - 1] = rank_at(best - 1);
  }
  out.insert(out.end(), symbols, symbols + count);
}

// A list of symbols linked both ways (a symbol is named by its first byte), and a queue of pairs by (rank, place). An
// entry is stale where the pair at its place has another rank by now.
void BpeMerges::encode_long(std::string_view word, Buffers& buffers, std::vector<std::uint32_t>& out) const {
  AF_CHECK(word.size() < kNone, "a word of {} bytes", word.size());
  const std::uint32_t size = std::uint32_t(word.size());
  auto& [symbols, ranks, previous, next, queue] = buffers;
  for (auto* list : {&symbols, &ranks, &previous, &next}) list->resize(size);
  queue.clear();
  for (std::uint32_t i = 0; i < size; ++i) {
    symbols[i] = byte_tokens_[static_cast<unsigned char>(word[i])];
    previous[i] = i == 0 ? kNone : i - 1;
    next[i] = i + 1 == size ? kNone : i + 1;
  }
  auto rank_pair = [&](std::uint32_t i) {  // true where the pair beginning at i merges
    ranks[i] = next[i] == kNone ? kNone : find(symbols[i], symbols[next[i]]).rank;
    return ranks[i] != kNone;
  };
  auto entry = [&](std::uint32_t i) { return std::uint64_t(ranks[i]) << 32 | i; };
  for (std::uint32_t i = 0; i < size; ++i) {
    if (rank_pair(i)) queue.push_back(entry(i));
  }
  constexpr auto kLater = std::greater<std::uint64_t>();
  std::make_heap(queue.begin(), queue.end(), kLater);
  auto push = [&](std::uint32_t i) {
    if (!rank_pair(i)) return;
    queue.push_back(entry(i));
    std::push_heap(queue.begin(), queue.end(), kLater);
  };
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), kLater);
    const std::uint64_t top = queue.back();
    queue.pop_back();
    const std::uint32_t at = std::uint32_t(top);
    if (ranks[at] != top >> 32) continue;
    const std::uint32_t right = next[at];
    symbols[at] = find(symbols[at], symbols[right]).result;
    next[at] = next[right];
    if (next[at] != kNone) previous[next[at]] = at;
    ranks[right] = kNone;  // it is no symbol's beginning any more
    push(at);
    if (previous[at] != kNone) push(previous[at]);
  }
  for (std::uint32_t i = 0; i != kNone; i = next[i]) out.push_back(symbols[i]);
}

}  // namespace af
