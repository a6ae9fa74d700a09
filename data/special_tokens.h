// Special tokens: strings that are one token as a whole, found in a text before anything else is done with it.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace af {

// What `<|...|>` in a text is. Never forged by default: a document that quotes "<|im_end|>" gets it as ordinary text.
// `<think>`, `<tool_call>`, `<tool_response>` and their ends are tokens either way, as in the released trajectories.
enum class SpecialTokens { split, recognise };

struct SpecialToken {
  std::string text;
  std::uint32_t id;
  bool control;  // `<|...|>`: written by the program only, unless asked to recognise it in texts
  bool operator==(const SpecialToken&) const = default;
};

// Qwen's 26, their ids from `first` on (151643 in Qwen's own vocabulary).
std::vector<SpecialToken> qwen_special_tokens(std::uint32_t first);

class SpecialTokenFinder {
 public:
  explicit SpecialTokenFinder(std::vector<SpecialToken> tokens);  // texts and ids must differ (InternalError)

  struct Match {
    std::size_t begin;          // text.size() where there is none
    const SpecialToken* token;  // nullptr where there is none
  };
  // The first match that begins at `from` or later; the longest where several begin there. Linear in the way it goes.
  Match next(std::string_view text, std::size_t from, SpecialTokens specials) const;

  const std::vector<SpecialToken>& tokens() const { return tokens_; }  // longest first
  const SpecialToken* find(std::string_view text) const;               // nullptr where there is none

 private:
  std::vector<SpecialToken> tokens_;
  std::array<bool, 256> begins_{};  // by first byte
  int only_first_byte_ = -1;        // where all begin with the same byte, as Qwen's do
};

}  // namespace af
