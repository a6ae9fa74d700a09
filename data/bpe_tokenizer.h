// Byte-level BPE as Qwen's: NFC, the split into words (word_split.h), byte pairs merged within each (bpe_merges.h).
#pragma once
#include "data/bpe_merges.h"
#include "data/tokenizer.h"
#include "data/word_split.h"

namespace af {

struct BpeVocabulary {
  std::vector<std::string> tokens;  // what each id spells, in bytes; "" where the id is unused or special
  std::vector<BpeMerge> merges;     // the first is applied first
  std::vector<SpecialToken> specials;
};

// What is wrong with it ("no token for the byte 0x41"); "" where nothing is.
std::string problem_of(const BpeVocabulary& vocabulary);

class BpeTokenizer : public Tokenizer {
 public:
  explicit BpeTokenizer(BpeVocabulary vocabulary);  // one without problems
  BpeTokenizer(const BpeTokenizer&) = delete;       // its parts point to each other

  std::unique_ptr<Encoder> encoder() const override;
  std::string_view bytes_of(std::uint32_t token) const override { return token < tokens_.size() ? tokens_[token] : std::string_view(); }
  std::int64_t vocab_size() const override { return std::int64_t(tokens_.size()); }
  // Of tokens, merges and special tokens, whatever files they come from. (Not of the Unicode version: characters younger
  // than it are split as symbols.)
  std::string sha256() const override { return sha256_; }

 private:
  friend class BpeEncoder;
  std::vector<std::string> tokens_;  // special ones too
  std::string sha256_;
  UnicodeTables unicode_;
  WordSplitter splitter_;
  BpeMerges merges_;
};

}  // namespace af
