#include "data/bpe_builder.h"

#include "core/error.h"
#include "data/json.h"
#include "data/utf8.h"

namespace af {
namespace {

constexpr std::int64_t kMostIds = 1 << 20;  // a table has a place for each, used or not; vocabularies have a quarter of it

void check_id(std::int64_t id, const std::string& where) {
  if (id < 0 || id >= kMostIds) user_error("{}: {} is no token id (0 to {})", where, id, kMostIds - 1);
}

}  // namespace

ByteAlphabet::ByteAlphabet() {
  char32_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    characters_[byte] = printable ? char32_t(byte) : next++;
    bytes_[characters_[byte]] = char(byte);
  }
}

std::optional<std::string> ByteAlphabet::bytes_of(std::string_view text) const {
  std::string bytes;
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Character c = utf8_character(text, at);
    const auto found = c.bytes == 0 ? bytes_.end() : bytes_.find(c.code_point);
    if (found == bytes_.end()) return std::nullopt;
    bytes += found->second;
    at += std::size_t(c.bytes);
  }
  return bytes;
}

std::string ByteAlphabet::text_of(std::string_view bytes) const {
  std::string text;
  for (char byte : bytes) append_utf8(characters_[static_cast<unsigned char>(byte)], text);
  return text;
}

void BpeBuilder::add_special(std::int64_t id, std::string text, bool special, const std::string& where) {
  check_id(id, where);
  const bool control = special || (text.starts_with("<|") && text.ends_with("|>"));
  SpecialToken token{std::move(text), std::uint32_t(id), control};
  for (const SpecialToken& other : vocabulary.specials) {
    if (other == token) return;  // tokenizer_config.json says it again
    if (other.id == token.id) user_error("{}: the id {} is '{}' here and '{}' elsewhere", where, id, token.text, other.text);
  }
  vocabulary.specials.push_back(std::move(token));
}

void BpeBuilder::add_tokens(const JsonView& vocab) {
  const std::string where = vocab.where();
  std::unordered_map<std::string_view, std::uint32_t> special;
  for (const SpecialToken& token : vocabulary.specials) special[token.text] = token.id;
  for (const auto& [text, value] : vocab.object()) {
    const std::int64_t id = value.integer(where);
    check_id(id, where);
    if (auto found = special.find(text); found != special.end() && found->second == id) continue;
    std::optional<std::string> bytes = alphabet_.bytes_of(text);
    if (!bytes || bytes->empty()) user_error("{}: the token '{}' is not written in byte-level characters", where, text);
    if (std::size_t(id) >= vocabulary.tokens.size()) vocabulary.tokens.resize(std::size_t(id) + 1);
    std::string& token = vocabulary.tokens[std::size_t(id)];
    if (!token.empty()) user_error("{}: two tokens have the id {}", where, id);
    ids_[*bytes] = std::uint32_t(id);
    token = std::move(*bytes);
  }
}

void BpeBuilder::add_merge(std::string_view left, std::string_view right, const std::string& where) {
  auto id_of = [&](const std::optional<std::string>& bytes, std::string_view text) {
    auto found = bytes ? ids_.find(*bytes) : ids_.end();
    if (found == ids_.end()) user_error("{}: the merge of '{}' and '{}' needs the token '{}', which does not exist", where, left, right, text);
    return found->second;
  };
  const std::optional<std::string> a = alphabet_.bytes_of(left), b = alphabet_.bytes_of(right);
  const std::uint32_t left_id = id_of(a, left), right_id = id_of(b, right);
  vocabulary.merges.push_back({left_id, right_id, id_of(*a + *b, std::string(left) + std::string(right))});
}

}  // namespace af
