#include "data/minhash.h"

#include <algorithm>
#include <array>

#include "data/utf8.h"

namespace af {
namespace {

// splitmix64's finaliser
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

bool is_own_word(std::uint32_t code) {
  return (code >= 0x2e80 && code < 0xd800 && code / 64 != 0x3000 / 64) || (code >= 0xf900 && code < 0xfb00) || code >= 0x20000;
}
bool is_separator(std::uint32_t code) {
  return (code >= 0x80 && code < 0xc0 && code != 0xaa && code != 0xb5 && code != 0xba) || (code >= 0x2000 && code < 0x2070) ||
         (code >= 0x2190 && code < 0x2c00) || (code >= 0x3000 && code < 0x3040) || (code >= 0xff00 && code < 0xff10) || code == 0xfeff;
}

// Calls f(hash) for each word.
template <class F>
void for_each_word(std::string_view text, F&& f) {
  constexpr std::uint64_t kNoWord = 0xcbf29ce484222325u;  // FNV-1a of nothing
  std::uint64_t hash = kNoWord;
  const auto end_word = [&] {
    if (hash != kNoWord) f(mix(hash));
    hash = kNoWord;
  };
  const auto add = [&](unsigned char byte) { hash = (hash ^ byte) * 0x100000001b3u; };
  for (std::size_t at = 0; at < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[at]);
    if (c < 0x80) {
      const bool upper = c >= 'A' && c <= 'Z', word = upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
      word ? add(upper ? c + 32 : c) : end_word();
      ++at;
      continue;
    }
    const Utf8Character character = utf8_character(text, at);
    const int bytes = std::max(character.bytes, 1);
    const bool own = is_own_word(character.code_point);
    if (own || is_separator(character.code_point)) end_word();
    if (!is_separator(character.code_point) || character.bytes == 0) {
      for (int i = 0; i < bytes; ++i) add(static_cast<unsigned char>(text[at + std::size_t(i)]));
    }
    if (own) end_word();
    at += std::size_t(bytes);
  }
  end_word();
}

}  // namespace

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
