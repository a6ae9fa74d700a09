// How long a text is, for limits on length.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"

namespace af {

// By a tokenizer, exactly; without one a token is taken for four bytes (English in Qwen's vocabulary: 3.9), rounded up. Any thread may ask.
class TokenCounter {
 public:
  explicit TokenCounter(const Tokenizer* tokenizer = nullptr) : encoder_(tokenizer ? tokenizer->encoder() : nullptr) {}

  std::int64_t operator()(std::string_view text) const {
    if (!encoder_) return std::int64_t(text.size() + 3) / 4;
    std::lock_guard lock(mutex_);
    tokens_.clear();
    encoder_->encode(text, SpecialTokens::split, tokens_);
    return std::int64_t(tokens_.size());
  }
  bool exact() const { return encoder_ != nullptr; }

 private:
  mutable std::mutex mutex_;
  std::unique_ptr<Encoder> encoder_;
  mutable std::vector<std::uint32_t> tokens_;
};

}  // namespace af
