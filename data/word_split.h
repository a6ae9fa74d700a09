// Qwen's split of a text into words, the pieces within which byte pairs are merged.
#pragma once
#include <cstddef>
#include <string_view>

#include "data/unicode.h"

namespace af {

// The pattern as Hugging Face's tokenizer.json has it; WordSplitter is its meaning, written out.
inline constexpr std::string_view kQwenSplitPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

class WordSplitter {
 public:
  explicit WordSplitter(const UnicodeTables& unicode);  // which must outlive it

  // The end of the word that begins at `at` < text.size(). Linear over a text: no character is looked at for more than three words.
  std::size_t word_end(std::string_view text, std::size_t at) const;

 private:
  struct Next {
    CharClass char_class;
    std::uint32_t length;
  };
  Next look(std::string_view text, std::size_t at) const;
  std::size_t run_end(std::string_view text, std::size_t at, CharClass char_class) const;
  std::size_t space_end(std::string_view text, std::size_t at) const;

  const UnicodeTables& unicode_;
  std::array<CharClass, 128> ascii_;
};

}  // namespace af
