// A vocabulary small enough to follow by hand.
#pragma once
#include <algorithm>
#include <string>

#include "data/bpe_tokenizer.h"

namespace af {

inline std::uint32_t toy_byte_id(char byte) { return 255u - static_cast<unsigned char>(byte); }  // not the byte itself: none may confuse them

// 256 bytes, then what these merges make, in this order; ties and overlaps included.
inline BpeVocabulary toy_vocabulary() {
  BpeVocabulary vocabulary;
  vocabulary.tokens.resize(256);
  for (int byte = 0; byte < 256; ++byte) vocabulary.tokens[toy_byte_id(char(byte))] = std::string(1, char(byte));
  auto id_of = [&](const std::string& token) {
    return std::uint32_t(std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), token) - vocabulary.tokens.begin());
  };
  const std::pair<const char*, const char*> merges[] = {{"h", "e"},  {"l", "l"}, {"a", "a"},  {"he", "ll"},   {"a", "b"},      {"hell", "o"},
                                                        {"aa", "b"}, {"b", "b"}, {"bb", "b"}, {" ", "hello"}, {"\xe4", "\xb8"}};
  for (const auto& [left, right] : merges) {
    vocabulary.merges.push_back({id_of(left), id_of(right), std::uint32_t(vocabulary.tokens.size())});
    vocabulary.tokens.push_back(std::string(left) + right);
  }
  vocabulary.specials = qwen_special_tokens(std::uint32_t(vocabulary.tokens.size()));
  return vocabulary;
}

}  // namespace af
