#include "data/tokenizer.h"

#include <array>

#include "core/error.h"
#include "data/byte_tokenizer.h"

namespace af {
namespace {

constexpr std::array kQwenSpecialTokens{
    SpecialToken{"<|endoftext|>", true},      SpecialToken{"<|im_start|>", true},
    SpecialToken{"<|im_end|>", true},         SpecialToken{"<|object_ref_start|>", true},
    SpecialToken{"<|object_ref_end|>", true}, SpecialToken{"<|box_start|>", true},
    SpecialToken{"<|box_end|>", true},        SpecialToken{"<|quad_start|>", true},
    SpecialToken{"<|quad_end|>", true},       SpecialToken{"<|vision_start|>", true},
    SpecialToken{"<|vision_end|>", true},     SpecialToken{"<|vision_pad|>", true},
    SpecialToken{"<|image_pad|>", true},      SpecialToken{"<|video_pad|>", true},
    SpecialToken{"<tool_call>", false},       SpecialToken{"</tool_call>", false},
    SpecialToken{"<|fim_prefix|>", true},     SpecialToken{"<|fim_middle|>", true},
    SpecialToken{"<|fim_suffix|>", true},     SpecialToken{"<|fim_pad|>", true},
    SpecialToken{"<|repo_name|>", true},      SpecialToken{"<|file_sep|>", true},
    SpecialToken{"<tool_response>", false},   SpecialToken{"</tool_response>", false},
    SpecialToken{"<think>", false},           SpecialToken{"</think>", false},
};
static_assert(kQwenSpecialTokens.size() == 26);

}  // namespace

std::span<const SpecialToken> qwen_special_tokens() { return kQwenSpecialTokens; }

void Tokenizer::encode(std::string_view text, SpecialTokens specials, std::vector<std::uint32_t>& out) const {
  std::size_t begin = 0;  // of the ordinary text not yet encoded
  for (std::size_t at = text.find('<'); at != std::string_view::npos; at = text.find('<', at)) {
    std::size_t length = 0;
    std::uint32_t id = first_special_token();
    for (const SpecialToken& token : kQwenSpecialTokens) {  // none is the beginning of another
      if ((specials == SpecialTokens::recognise || !token.control) && text.substr(at).starts_with(token.text)) {
        length = token.text.size();
        break;
      }
      ++id;
    }
    if (length > 0) {
      if (at > begin) encode_ordinary(text.substr(begin, at - begin), out);
      out.push_back(id);
      begin = at + length;
    }
    at += std::max<std::size_t>(length, 1);
  }
  if (begin < text.size()) encode_ordinary(text.substr(begin), out);
}

std::string Tokenizer::decode(std::span<const std::uint32_t> tokens) const {
  std::string text;
  for (std::uint32_t token : tokens) {
    std::string_view bytes = token < vocab_size() ? bytes_of(token) : std::string_view();
    if (bytes.empty()) user_error("token id {} has no text in this vocabulary of {} ids", token, vocab_size());
    text += bytes;
  }
  return text;
}

std::uint32_t Tokenizer::special_token(std::string_view text) const {
  std::uint32_t id = first_special_token();
  for (const SpecialToken& token : kQwenSpecialTokens) {
    if (token.text == text) return id;
    ++id;
  }
  user_error("'{}' is no special token of this vocabulary", text);
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name) {
  if (name == "bytes") return std::make_unique<ByteTokenizer>();
  user_error("tokenizer '{}' is unknown; there is 'bytes' (256 bytes and Qwen's special tokens)", name);
}

}  // namespace af
