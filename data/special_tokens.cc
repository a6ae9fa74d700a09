#include "data/special_tokens.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "core/error.h"

namespace af {
namespace {

struct QwenToken {
  const char* text;
  bool control;
};
constexpr std::array kQwenTokens{
    // in the order of their ids
    QwenToken{"<|endoftext|>", true},      QwenToken{"<|im_start|>", true},
    QwenToken{"<|im_end|>", true},         QwenToken{"<|object_ref_start|>", true},
    QwenToken{"<|object_ref_end|>", true}, QwenToken{"<|box_start|>", true},
    QwenToken{"<|box_end|>", true},        QwenToken{"<|quad_start|>", true},
    QwenToken{"<|quad_end|>", true},       QwenToken{"<|vision_start|>", true},
    QwenToken{"<|vision_end|>", true},     QwenToken{"<|vision_pad|>", true},
    QwenToken{"<|image_pad|>", true},      QwenToken{"<|video_pad|>", true},
    QwenToken{"<tool_call>", false},       QwenToken{"</tool_call>", false},
    QwenToken{"<|fim_prefix|>", true},     QwenToken{"<|fim_middle|>", true},
    QwenToken{"<|fim_suffix|>", true},     QwenToken{"<|fim_pad|>", true},
    QwenToken{"<|repo_name|>", true},      QwenToken{"<|file_sep|>", true},
    QwenToken{"<tool_response>", false},   QwenToken{"</tool_response>", false},
    QwenToken{"<think>", false},           QwenToken{"</think>", false},
};
static_assert(kQwenTokens.size() == 26);

}  // namespace

std::vector<SpecialToken> qwen_special_tokens(std::uint32_t first) {
  std::vector<SpecialToken> tokens;
  for (const QwenToken& token : kQwenTokens) tokens.push_back({token.text, first++, token.control});
  return tokens;
}

SpecialTokenFinder::SpecialTokenFinder(std::vector<SpecialToken> tokens) : tokens_(std::move(tokens)) {
  std::set<std::string> texts;
  std::set<std::uint32_t> ids;
  for (const SpecialToken& token : tokens_) {
    AF_CHECK(!token.text.empty() && texts.insert(token.text).second, "special token '{}' is empty or occurs twice", token.text);
    AF_CHECK(ids.insert(token.id).second, "two special tokens have the id {}", token.id);
    begins_[static_cast<unsigned char>(token.text[0])] = true;
  }
  std::stable_sort(tokens_.begin(), tokens_.end(), [](const SpecialToken& a, const SpecialToken& b) { return a.text.size() > b.text.size(); });
  if (std::count(begins_.begin(), begins_.end(), true) == 1) only_first_byte_ = static_cast<unsigned char>(tokens_[0].text[0]);
}

SpecialTokenFinder::Match SpecialTokenFinder::next(std::string_view text, std::size_t from, SpecialTokens specials) const {
  for (std::size_t at = from; at < text.size(); ++at) {
    if (only_first_byte_ >= 0) {
      const void* found = std::memchr(text.data() + at, only_first_byte_, text.size() - at);
      if (!found) break;
      at = std::size_t(static_cast<const char*>(found) - text.data());
    } else if (!begins_[static_cast<unsigned char>(text[at])]) {
      continue;
    }
    for (const SpecialToken& token : tokens_) {
      if ((specials == SpecialTokens::recognise || !token.control) && text.substr(at).starts_with(token.text)) return {at, &token};
    }
  }
  return {text.size(), nullptr};
}

const SpecialToken* SpecialTokenFinder::find(std::string_view text) const {
  for (const SpecialToken& token : tokens_) {
    if (token.text == text) return &token;
  }
  return nullptr;
}

}  // namespace af
