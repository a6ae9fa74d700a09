// Text <-> token ids. Byte-level: every token stands for a fixed string of bytes, so that decoding is concatenation.
//
// A Tokenizer is the vocabulary: large, never changed, used by any number of threads at once. An Encoder is what one
// thread encodes with: it keeps a cache of words and buffers, so make one per thread and keep it.
//   std::unique_ptr<Tokenizer> tokenizer = make_tokenizer("qwen/");   // once
//   std::unique_ptr<Encoder> encoder = tokenizer->encoder();          // per thread
//   encoder->encode(text, SpecialTokens::split, ids);
// What an Encoder gives depends on the text alone, never on what it encoded before.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/special_tokens.h"

namespace af {

class Encoder;

class Tokenizer {
 public:
  explicit Tokenizer(std::vector<SpecialToken> specials) : specials_(std::move(specials)) {}
  virtual ~Tokenizer() = default;

  virtual std::unique_ptr<Encoder> encoder() const = 0;              // must not outlive the tokenizer
  virtual std::string_view bytes_of(std::uint32_t token) const = 0;  // "" for ids below vocab_size() that are not used
  virtual std::int64_t vocab_size() const = 0;                       // ids are below it
  virtual std::string sha256() const = 0;                            // equal exactly where the same text gives the same ids
  std::string decode(std::span<const std::uint32_t> tokens) const;   // UserError where an id has no text
  std::uint32_t special_token(std::string_view text) const;          // id of "<|im_start|>"; UserError where there is none
  std::uint32_t eod_token() const { return special_token("<|endoftext|>"); }
  const SpecialTokenFinder& specials() const { return specials_; }

 private:
  SpecialTokenFinder specials_;
};

class Encoder {
 public:
  explicit Encoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  virtual ~Encoder() = default;

  // Appends the tokens of `text`, special tokens matched whole as `specials` says. Any bytes are encoded; those that are
  // no UTF-8 stand for themselves.
  void encode(std::string_view text, SpecialTokens specials, std::vector<std::uint32_t>& out);
  // The text as the tokens spell it: decode(encode(text)). NFC, where the vocabulary wants it, of what lies between
  // special tokens. Good until the next call; `text` itself where nothing changes.
  std::string_view normalised(std::string_view text, SpecialTokens specials);

  const Tokenizer& tokenizer() const { return tokenizer_; }

 protected:
  virtual void encode_ordinary(std::string_view text, std::vector<std::uint32_t>& out) = 0;
  virtual std::string_view normalised_ordinary(std::string_view text) = 0;  // good until the next call; may be `text`

 private:
  const Tokenizer& tokenizer_;
  std::string normalised_;
};

// "bytes" is the byte tokenizer; anything else a folder or file with a byte-level BPE vocabulary (bpe_files.h).
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name);

}  // namespace af
