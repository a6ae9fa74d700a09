#include "data/crc32c.h"

#include <nmmintrin.h>

#include <cstring>

namespace af {

std::uint32_t crc32c(std::string_view bytes, std::uint32_t before) {
  const char *at = bytes.data(), *end = at + bytes.size();
  std::uint64_t crc = ~before;
  for (; end - at >= 8; at += 8) {
    std::uint64_t word;
    std::memcpy(&word, at, 8);
    crc = _mm_crc32_u64(crc, word);
  }
  std::uint32_t out = std::uint32_t(crc);
  for (; at < end; ++at) out = _mm_crc32_u8(out, static_cast<unsigned char>(*at));
  return ~out;
}

}  // namespace af
