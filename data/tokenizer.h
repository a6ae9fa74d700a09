// Text <-> token ids. Byte-level: every token stands for a fixed string of bytes, so that decoding is concatenation.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace af {

// What `<|...|>` in a text is. Never forged by default: a document that quotes "<|im_end|>" gets it as ordinary text.
// `<think>`, `<tool_call>`, `<tool_response>` and their ends are tokens either way, as in the released trajectories.
enum class SpecialTokens { split, recognise };

struct SpecialToken {
  std::string_view text;
  bool control;  // `<|...|>`: written by the program only, unless asked to recognise it in texts
};

// Qwen's 26, in the order of their ids (151643 ... 151668 in Qwen's own vocabulary).
std::span<const SpecialToken> qwen_special_tokens();

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Appends the tokens of `text`, special tokens matched whole as `specials` says.
  void encode(std::string_view text, SpecialTokens specials, std::vector<std::uint32_t>& out) const;
  std::string decode(std::span<const std::uint32_t> tokens) const;  // UserError where an id has no text

  virtual std::string_view bytes_of(std::uint32_t token) const = 0;  // "" for ids that pad the vocabulary
  virtual std::int64_t vocab_size() const = 0;                       // ids are below it
  virtual std::string sha256() const = 0;                            // equal exactly where the same text gives the same ids
  std::uint32_t special_token(std::string_view text) const;          // id of "<|im_start|>"; UserError where there is none
  std::uint32_t eod_token() const { return special_token("<|endoftext|>"); }

 protected:
  virtual void encode_ordinary(std::string_view text, std::vector<std::uint32_t>& out) const = 0;
  virtual std::uint32_t first_special_token() const = 0;  // id of qwen_special_tokens()[0]; the others follow
};

// "bytes": the byte tokenizer. Anything else is a UserError.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name);

}  // namespace af
