// CRC-32C (Castagnoli, RFC 3720 appendix B.4), with the processor's instruction: 8 bytes in 3 cycles.
#pragma once
#include <cstdint>
#include <string_view>

namespace af {

// Of `bytes` behind what `before` is the checksum of: crc32c(b, crc32c(a)) == crc32c(ab).
std::uint32_t crc32c(std::string_view bytes, std::uint32_t before = 0);

}  // namespace af
