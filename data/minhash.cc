#include "data/minhash.h"

#include <algorithm>
#include <array>

#include "data/words.h"

namespace af {

void minhash(std::string_view text, std::uint16_t* out) {
  constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  std::array<std::uint64_t, kSignature> least;
  least.fill(kEmpty);
  const auto add = [&](std::uint64_t hash) {  // the upper 7 bits choose the bin
    std::uint64_t& bin = least[hash >> 57];
    bin = std::min(bin, hash);
  };
  std::array<std::uint64_t, 5> words{};  // the last five, the oldest first
  std::size_t count = 0;
  for_each_word(text, [&](std::uint64_t word) {
    std::copy(words.begin() + 1, words.end(), words.begin());
    words.back() = word;
    if (++count >= words.size()) {
      std::uint64_t gram = 0;
      for (std::uint64_t w : words) gram = gram * 0x9e3779b97f4a7c15u + w;
      add(mix(gram));
    }
  });
  if (count < words.size()) {  // also a text without a word: then its bytes are one
    std::uint64_t gram = count;
    for (std::uint64_t w : words) gram = gram * 0x9e3779b97f4a7c15u + w;
    if (count == 0) {
      for (char c : text) gram = (gram ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    }
    add(mix(gram));
  }
  for (std::size_t i = 0; i < kSignature; ++i) {
    std::uint64_t value = least[i];
    for (std::uint64_t attempt = 1; value == kEmpty; ++attempt) value = least[mix(i << 32 | attempt) % kSignature];
    out[i] = std::uint16_t(mix(value));
  }
}

}  // namespace af
