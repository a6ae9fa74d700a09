// UTF-8 as Unicode defines it: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace af {

struct Utf8Character {
  std::uint32_t code_point = 0;
  int bytes = 0;  // 1 ... 4; 0 where the text is not UTF-8 there
};
Utf8Character utf8_character(std::string_view text, std::size_t at);  // at < text.size()

// Where the first character that is not UTF-8 begins; text.size(): there is none.
std::size_t first_invalid_utf8(std::string_view text);

// Safe to print on a terminal: control characters (but new line and tab) and what is no UTF-8 as \xNN.
std::string printable(std::string_view text);

}  // namespace af
