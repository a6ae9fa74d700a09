// What tokenization needs of Unicode: character classes and normalisation to NFC (utf8proc's data, in tables).
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace af {

void append_utf8(char32_t c, std::string& out);
// NFKC with case folded: equal for texts that differ in case, width or composition alone. A text that is not UTF-8 has its ASCII letters lowered.
std::string fold_case(std::string_view text);

enum class CharClass : std::uint8_t {
  other,
  letter,   // \p{L}
  number,   // \p{N}
  space,    // \s (White_Space) but for the next
  newline,  // \r and \n
};

class UnicodeTables {  // built in some milliseconds; never changed, used by any number of threads
 public:
  UnicodeTables();

  CharClass char_class(char32_t c) const { return CharClass(flags(c) & 7); }

  // Normal form C. The text itself where it plainly is in it already (a look at each character says so), else the buffer.
  // Near-linear for every text; bytes that are not UTF-8 stay as they are.
  std::string_view nfc(std::string_view text, std::string& buffer) const;

 private:
  static constexpr std::uint8_t kInert = 8;  // starts a run of its own in NFC: unchanged, and joins nothing before it

  std::uint8_t flags(char32_t c) const { return pages_[page_of_[c >> 8]][c & 255]; }
  std::size_t find_not_inert(std::string_view text, std::size_t at) const;  // text.size() where there is none
  void append_nfc(std::string_view segment, std::string& out) const;

  using Page = std::array<std::uint8_t, 256>;
  std::vector<Page> pages_;  // those that differ
  std::array<std::uint16_t, 0x1100> page_of_{};
};

}  // namespace af
