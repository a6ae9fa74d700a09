// CRC-32C against RFC 3720's vectors and a bit-by-bit computation.
#include "data/crc32c.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace af {
namespace {

std::uint32_t bit_by_bit(std::string_view bytes) {
  std::uint32_t crc = ~0u;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; ++i) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0u);
  }
  return ~crc;
}

TEST(Crc32c, VectorsOfTheStandard) {
  std::string up, down;
  for (int i = 0; i < 32; ++i) up += char(i), down += char(31 - i);
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(up), 0x46dd794eu);
  EXPECT_EQ(crc32c(down), 0x113fdb5cu);
}

TEST(Crc32c, EveryLengthAlignmentAndCut) {
  std::mt19937 random(1);
  std::string bytes(200, '\0');
  for (char& c : bytes) c = char(random());
  for (std::size_t begin = 0; begin < 9; ++begin)
    for (std::size_t length = 0; length <= 40; ++length) {
      const std::string_view part = std::string_view(bytes).substr(begin, length);
      EXPECT_EQ(crc32c(part), bit_by_bit(part));
    }
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    const std::string_view all = bytes;
    EXPECT_EQ(crc32c(all.substr(cut), crc32c(all.substr(0, cut))), bit_by_bit(all));
  }
}

}  // namespace
}  // namespace af
