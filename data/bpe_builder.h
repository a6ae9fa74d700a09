// Gathers a vocabulary from the parts of one or more files; complaints name the file.
#pragma once
#include <array>
#include <optional>
#include <unordered_map>

#include "data/bpe_tokenizer.h"

namespace af {

class JsonView;

// Hugging Face's files write a token's bytes as characters: printable ones of Latin-1 as themselves, the others, in
// order, as U+0100 and on (a space is U+0120).
class ByteAlphabet {
 public:
  ByteAlphabet();
  std::optional<std::string> bytes_of(std::string_view text) const;  // none where a character stands for no byte
  std::string text_of(std::string_view bytes) const;
  char32_t character_of(char byte) const { return characters_[static_cast<unsigned char>(byte)]; }

 private:
  std::array<char32_t, 256> characters_;
  std::unordered_map<char32_t, char> bytes_;
};

class BpeBuilder {
 public:
  // `special` is Hugging Face's word for it; `<|...|>` is control either way. The same token twice is one.
  void add_special(std::int64_t id, std::string text, bool special, const std::string& where);
  void add_tokens(const JsonView& vocab);  // {"token": id, ...}; after the special tokens, which a vocabulary may list too
  void add_merge(std::string_view left, std::string_view right, const std::string& where);  // as the files write them; after the tokens

  BpeVocabulary vocabulary;

 private:
  ByteAlphabet alphabet_;
  std::unordered_map<std::string, std::uint32_t> ids_;  // of ordinary tokens by their bytes
};

}  // namespace af
