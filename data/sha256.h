// SHA-256 (FIPS 180-4), for the identity of tokenizers and files.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace af {

class Sha256 {
 public:
  void update(std::string_view bytes);
  std::string hex();  // 64 hexadecimal digits; ends the computation

 private:
  void blocks(const unsigned char* bytes, std::size_t count);  // of 64 bytes
  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> pending_{};
  std::uint64_t length_ = 0;  // bytes so far
};

std::string sha256_hex(std::string_view bytes);

}  // namespace af
