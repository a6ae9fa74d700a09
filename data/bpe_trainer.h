// Learns a byte-level BPE vocabulary: of all pairs of neighbours within words the most frequent becomes a token, again and
// again. Words are those of word_split.h in NFC; `<think>` and the like are no part of any. Memory: the different words
// of the text and the pairs in them.
#pragma once
#include <string>
#include <unordered_map>

#include "data/bpe_tokenizer.h"

namespace af {

class BpeTrainer {
 public:
  BpeTrainer() : splitter_(unicode_), specials_(qwen_special_tokens(0)) {}
  BpeTrainer(const BpeTrainer&) = delete;  // its parts point to each other

  void add(std::string_view text);

  // Ids: the 256 bytes in the order of ByteAlphabet's characters, the learned tokens, Qwen's 26 special tokens; vocab_size in
  // all, or fewer where no pair is left that occurs twice. Of equally frequent pairs the one with the lower left id, then the
  // lower right id, is first, so that the result depends on the counts of words alone.
  BpeVocabulary train(std::int64_t vocab_size) const;

 private:
  UnicodeTables unicode_;
  WordSplitter splitter_;
  SpecialTokenFinder specials_;
  std::unordered_map<std::string, std::int64_t> words_;  // how often each occurs
  std::string normalised_, word_;
};

}  // namespace af
