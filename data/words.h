// Words of a text, for comparing texts: runs of ASCII letters and digits without regard to case and of other characters that are no
// punctuation; of scripts that put no blanks between words (Chinese, Japanese, ..) each character is a word.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string_view>

#include "data/utf8.h"

namespace af {

inline std::uint64_t mix(std::uint64_t x) {  // splitmix64's finaliser
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

inline bool is_own_word(std::uint32_t code) {
  return (code >= 0x2e80 && code < 0xd800 && code / 64 != 0x3000 / 64) || (code >= 0xf900 && code < 0xfb00) || code >= 0x20000;
}
inline bool is_separator(std::uint32_t code) {
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

}  // namespace af
