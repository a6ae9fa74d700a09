#include "data/utf8.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

namespace af {

Utf8Character utf8_character(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const int bytes = lead >= 0xc2 && lead < 0xe0 ? 2 : lead >= 0xe0 && lead < 0xf0 ? 3 : lead >= 0xf0 && lead < 0xf5 ? 4 : 0;
  if (bytes == 0 || text.size() - at < std::size_t(bytes)) return {};
  std::uint32_t code = lead & (0x7f >> bytes);
  for (int i = 1; i < bytes; ++i) {
    if ((byte(std::size_t(i)) & 0xc0) != 0x80) return {};
    code = code << 6 | (byte(std::size_t(i)) & 0x3f);
  }
  const bool overlong = (bytes == 3 && code < 0x800) || (bytes == 4 && code < 0x10000), surrogate = code >= 0xd800 && code < 0xe000;
  return overlong || surrogate || code > 0x10ffff ? Utf8Character{} : Utf8Character{code, bytes};
}

std::size_t first_invalid_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    std::uint64_t eight;
    if (text.size() - at >= sizeof eight) {
      std::memcpy(&eight, text.data() + at, sizeof eight);
      if ((eight & 0x8080808080808080u) == 0) {
        at += sizeof eight;
        continue;
      }
    }
    const int bytes = utf8_character(text, at).bytes;
    if (bytes == 0) return at;
    at += std::size_t(bytes);
  }
  return at;
}

std::string printable(std::string_view text) {
  std::string safe;
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Character c = utf8_character(text, at);
    const bool control = c.bytes == 0 || (c.code_point < 32 && c.code_point != '\n' && c.code_point != '\t') ||
                         (c.code_point >= 127 && c.code_point < 160);  // C1 too: a terminal may obey them
    const std::size_t end = at + std::size_t(std::max(c.bytes, 1));
    for (; at < end; ++at) safe += control ? fmt::format("\\x{:02x}", static_cast<unsigned char>(text[at])) : std::string(1, text[at]);
  }
  return safe;
}

}  // namespace af
