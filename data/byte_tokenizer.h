// The vocabulary that needs no file: ids 0..255 are the bytes, 256..281 Qwen's special tokens in Qwen's order
// (256 is <|endoftext|>), 282..287 pad the vocabulary to a multiple of 32 and never occur.
#pragma once
#include "data/tokenizer.h"

namespace af {

class ByteTokenizer : public Tokenizer {
 public:
  static constexpr std::uint32_t kFirstSpecial = 256;
  static constexpr std::int64_t kVocabSize = 288;

  std::string_view bytes_of(std::uint32_t token) const override;
  std::int64_t vocab_size() const override { return kVocabSize; }
  std::string sha256() const override;

 protected:
  void encode_ordinary(std::string_view text, std::vector<std::uint32_t>& out) const override;
  std::uint32_t first_special_token() const override { return kFirstSpecial; }
};

}  // namespace af
