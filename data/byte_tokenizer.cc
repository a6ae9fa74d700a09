#include "data/byte_tokenizer.h"

#include <array>

#include "data/sha256.h"

namespace af {
namespace {

constexpr auto kBytes = [] {
  std::array<char, 256> bytes{};
  for (int i = 0; i < 256; ++i) bytes[i] = char(i);
  return bytes;
}();

}  // namespace

std::string_view ByteTokenizer::bytes_of(std::uint32_t token) const {
  if (token < kFirstSpecial) return std::string_view(&kBytes[token], 1);
  std::span<const SpecialToken> specials = qwen_special_tokens();
  return token - kFirstSpecial < specials.size() ? specials[token - kFirstSpecial].text : std::string_view();
}

std::string ByteTokenizer::sha256() const {
  std::string description = "af byte tokenizer 1\n";
  for (const SpecialToken& token : qwen_special_tokens()) description += std::string(token.text) + "\n";
  return sha256_hex(description);
}

void ByteTokenizer::encode_ordinary(std::string_view text, std::vector<std::uint32_t>& out) const {
  std::size_t begin = out.size();
  out.resize(begin + text.size());
  for (std::size_t i = 0; i < text.size(); ++i) out[begin + i] = static_cast<unsigned char>(text[i]);
}

}  // namespace af
