// The vocabulary that needs no file: ids 0..255 are the bytes, 256..281 Qwen's special tokens in Qwen's order
// (256 is <|endoftext|>), 282..287 pad the vocabulary to a multiple of 32 and never occur.
#pragma once
#include "data/tokenizer.h"

namespace af {

class ByteTokenizer : public Tokenizer {
 public:
  static constexpr std::uint32_t kFirstSpecial = 256;
  static constexpr std::int64_t kVocabSize = 288;

  ByteTokenizer() : Tokenizer(qwen_special_tokens(kFirstSpecial)) {}
  std::unique_ptr<Encoder> encoder() const override;
  std::string_view bytes_of(std::uint32_t token) const override;
  std::int64_t vocab_size() const override { return kVocabSize; }
  std::string sha256() const override;

 private:
  std::vector<SpecialToken> by_id_ = qwen_special_tokens(kFirstSpecial);
};

}  // namespace af
