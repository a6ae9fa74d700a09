// Merging byte pairs within a word: the symbols of a word, at first its bytes, are joined pair by pair, the pair that
// comes first in the list of merges first, the leftmost first among equals.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace af {

struct BpeMerge {  // token ids; what `result` spells is what `left` and `right` spell
  std::uint32_t left, right, result;
  bool operator==(const BpeMerge&) const = default;
};

class BpeMerges {  // never changed once filled, used by any number of threads
 public:
  // The token of each byte. At most `most` merges will be added.
  BpeMerges(const std::array<std::uint32_t, 256>& byte_tokens, std::size_t most);
  bool add(const BpeMerge& merge);  // as the last in the list; false where the pair is in it already

  struct Buffers {  // one thread's; kept to save allocations
    std::vector<std::uint32_t> symbols, ranks, previous, next;
    std::vector<std::uint64_t> queue;
  };
  // Appends the tokens of `word`. O(n log n) for n bytes.
  void encode(std::string_view word, Buffers& buffers, std::vector<std::uint32_t>& out) const;

 private:
  struct Slot {
    std::uint32_t left, right, rank, result;
  };
  const Slot& find(std::uint32_t left, std::uint32_t right) const;  // of rank kNone where the pair does not merge
  void encode_short(std::string_view word, std::vector<std::uint32_t>& out) const;
  void encode_long(std::string_view word, Buffers& buffers, std::vector<std::uint32_t>& out) const;

  std::array<std::uint32_t, 256> byte_tokens_;
  std::vector<Slot> slots_;  // open addressing, at most half full
  int shift_;                // 64 - log2 of their number
  std::uint32_t size_ = 0;
};

}  // namespace af
