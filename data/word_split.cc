#include "data/word_split.h"

#include "data/utf8.h"

namespace af {
namespace {

// The length of (?i:'s|'t|'re|'ve|'m|'ll|'d) at the beginning of a text that begins with an apostrophe; 0: none.
// Without regard to case U+017F, the long s, is an s.
std::size_t contraction_length(std::string_view text) {
  auto lower = [&](std::size_t i) { return i < text.size() ? char(text[i] | 0x20) : '\0'; };  // of letters; nothing else becomes one of these
  switch (lower(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return lower(2) == 'e' ? 3 : 0;
    case 'l':
      return lower(2) == 'l' ? 3 : 0;
    default:
      return text.substr(1).starts_with("\u017f") ? 3 : 0;
  }
}

}  // namespace

WordSplitter::WordSplitter(const UnicodeTables& unicode) : unicode_(unicode) {
  for (char32_t c = 0; c < 128; ++c) ascii_[c] = unicode.char_class(c);
}

inline WordSplitter::Next WordSplitter::look(std::string_view text, std::size_t at) const {
  auto byte = static_cast<unsigned char>(text[at]);
  if (byte < 128) return {ascii_[byte], 1};
  const Utf8Character c = utf8_character(text, at);
  if (c.bytes == 0) return {CharClass::other, 1};
  return {unicode_.char_class(c.code_point), std::uint32_t(c.bytes)};
}

inline std::size_t WordSplitter::run_end(std::string_view text, std::size_t at, CharClass char_class) const {
  while (at < text.size()) {
    Next next = look(text, at);
    if (next.char_class != char_class) break;
    at += next.length;
  }
  return at;
}

// \s*[\r\n]+ | \s+(?!\S) | \s+ : to the last line end of the white space; without one all of it but the last character,
// which goes with the word that follows (if one follows, and is not all there is).
std::size_t WordSplitter::space_end(std::string_view text, std::size_t at) const {
  std::size_t end = at, last = at, after_newline = at;
  while (end < text.size()) {
    Next next = look(text, end);
    if (next.char_class != CharClass::space && next.char_class != CharClass::newline) break;
    last = end;
    end += next.length;
    if (next.char_class == CharClass::newline) after_newline = end;
  }
  if (after_newline > at) return after_newline;
  return end == text.size() || last == at ? end : last;
}

std::size_t WordSplitter::word_end(std::string_view text, std::size_t at) const {
  const Next first = look(text, at);
  if (text[at] == '\'') {
    if (std::size_t length = contraction_length(text.substr(at))) return at + length;
  }
  const std::size_t second = at + first.length;
  if (first.char_class == CharClass::letter) return run_end(text, second, CharClass::letter);
  if (first.char_class == CharClass::number) return second;
  if (first.char_class == CharClass::newline) return space_end(text, at);
  if (second == text.size()) return second;
  const Next next = look(text, second);
  if (next.char_class == CharClass::letter) return run_end(text, second + next.length, CharClass::letter);
  if (first.char_class == CharClass::other || (text[at] == ' ' && next.char_class == CharClass::other)) {
    return run_end(text, run_end(text, second, CharClass::other), CharClass::newline);
  }
  return space_end(text, at);
}

}  // namespace af
