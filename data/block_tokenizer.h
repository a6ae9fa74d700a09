// A block of input text becomes documents: JSON lines of text, chat messages or segments with roles, or a whole file of text.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/block_record.h"
#include "data/json.h"
#include "data/tokenizer.h"

namespace af {

struct TokenizeOptions {
  std::string text_key;     // "" : 'segments', 'messages' or 'text', the first that a line has; else this member alone
  std::string licence_key;  // the member that names a line's licence; "": none does
  SpecialTokens specials = SpecialTokens::split;
  std::optional<RoleSet> loss_on;  // of chats and segments only these roles count as targets, text without roles as a whole; nullopt: all
  bool signatures = false;         // for near duplicates
};

// For one thread.
class BlockTokenizer {
 public:
  BlockTokenizer(const Tokenizer& tokenizer, const TokenizeOptions& options, std::span<const TextSource> sources)
      : encoder_(tokenizer.encoder()), options_(options), sources_(sources) {}

  // A line that cannot be used is a problem with its number, "FILE:LINE: ..."; the others are unharmed.
  void run(const TextBlock& block, BlockRecord& record);

 private:
  void add_line(std::string_view line, std::int64_t number);
  void add_text_file(std::string_view text);
  enum class Roles { none, given };
  void add_document(std::string_view text, std::int64_t line, std::string_view licence, Roles roles);  // document_, made of `text`
  void add_problem(std::int64_t line, const std::string& what);
  std::int64_t licence_number(std::string_view licence);
  const TextSource& source() const { return sources_[std::size_t(record_->source)]; }

  std::unique_ptr<Encoder> encoder_;
  TokenizeOptions options_;
  std::span<const TextSource> sources_;
  BlockRecord* record_ = nullptr;
  Document document_;
  std::string text_, buffer_;
};

}  // namespace af
