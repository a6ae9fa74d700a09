#include "data/tokenizer.h"

#include "core/error.h"
#include "data/bpe_files.h"
#include "data/byte_tokenizer.h"

namespace af {

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
  const SpecialToken* token = specials_.find(text);
  if (!token) user_error("'{}' is no special token of this vocabulary", text);
  return token->id;
}

void Encoder::encode(std::string_view text, SpecialTokens specials, std::vector<std::uint32_t>& out) {
  for (std::size_t begin = 0; begin < text.size();) {
    auto [end, token] = tokenizer_.specials().next(text, begin, specials);
    if (end > begin) encode_ordinary(text.substr(begin, end - begin), out);
    begin = end;
    if (!token) continue;
    out.push_back(token->id);
    begin += token->text.size();
  }
}

std::string_view Encoder::normalised(std::string_view text, SpecialTokens specials) {
  std::size_t kept = 0;  // what stands before it is in normalised_
  normalised_.clear();
  for (std::size_t begin = 0; begin < text.size();) {
    auto [end, token] = tokenizer_.specials().next(text, begin, specials);
    std::string_view before = text.substr(begin, end - begin);
    std::string_view after = normalised_ordinary(before);
    if (after.data() != before.data()) {
      normalised_.append(text, kept, begin - kept).append(after);
      kept = end;
    }
    begin = token ? end + token->text.size() : end;
  }
  if (kept == 0 && normalised_.empty()) return text;
  return normalised_.append(text, kept);
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name) {
  if (name == "bytes") return std::make_unique<ByteTokenizer>();
  return std::make_unique<BpeTokenizer>(read_bpe_vocabulary(name));
}

}  // namespace af
