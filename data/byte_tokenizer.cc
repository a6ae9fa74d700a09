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

class ByteEncoder : public Encoder {
 public:
  using Encoder::Encoder;

 protected:
  void encode_ordinary(std::string_view text, std::vector<std::uint32_t>& out) override {
    std::size_t begin = out.size();
    out.resize(begin + text.size());
    for (std::size_t i = 0; i < text.size(); ++i) out[begin + i] = static_cast<unsigned char>(text[i]);
  }
  std::string_view normalised_ordinary(std::string_view text) override { return text; }
};

}  // namespace

std::unique_ptr<Encoder> ByteTokenizer::encoder() const { return std::make_unique<ByteEncoder>(*this); }

std::string_view ByteTokenizer::bytes_of(std::uint32_t token) const {
  if (token < kFirstSpecial) return std::string_view(&kBytes[token], 1);
  return token - kFirstSpecial < by_id_.size() ? std::string_view(by_id_[token - kFirstSpecial].text) : std::string_view();
}

std::string ByteTokenizer::sha256() const {
  std::string description = "af byte tokenizer 1\n";
  for (const SpecialToken& token : by_id_) description += token.text + "\n";
  return sha256_hex(description);
}

}  // namespace af
