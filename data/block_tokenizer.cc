#include "data/block_tokenizer.h"

#include <algorithm>

#include "core/error.h"
#include "data/chat.h"
#include "data/duplicates.h"
#include "data/segments.h"
#include "data/utf8.h"

namespace af {
namespace {

constexpr std::size_t kMostLicenceBytes = 200;

}  // namespace

void BlockTokenizer::run(const TextBlock& block, BlockRecord& record) {
  record.clear();
  record_ = &record;
  record.source = block.source, record.number = block.number, record.lines = block.lines, record.last = block.last;
  record.text_bytes = block.text_bytes, record.file_bytes = block.file_bytes, record.sha256 = block.sha256;
  auto problem = block.problems.begin();
  std::string_view rest = block.text;
  const auto report_before = [&](std::int64_t line) {  // keeps problems in the order of the lines
    for (; problem != block.problems.end() && problem->line <= line; ++problem) {
      add_problem(problem->line, source().lines ? fmt::format("{}:{}: {}", source().name, problem->line, problem->what)
                                                : fmt::format("{}: {}", source().name, problem->what));
    }
  };
  if (!source().lines) {
    report_before(INT64_MAX);
    if (record.skipped == 0) add_text_file(rest);
    return;
  }
  for (std::int64_t number = block.first_line; !rest.empty(); ++number) {
    report_before(number);
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    try {
      add_line(line, number);
    } catch (const UserError& error) {
      add_problem(number, error.what());
    }
  }
  report_before(INT64_MAX);
}

void BlockTokenizer::add_line(std::string_view line, std::int64_t number) {
  const Json json = Json::parse(line, source().name, number);
  const JsonView view(json, fmt::format("{}:{}", source().name, number));
  const std::string text_key = options_.text_key.empty() ? "text" : options_.text_key;
  std::string_view licence;
  if (!options_.licence_key.empty() && view.has(options_.licence_key)) {
    licence = view[options_.licence_key].string();
    if (licence.size() > kMostLicenceBytes) user_error("{}: a licence of {} bytes; {} at most", view.where(), licence.size(), kMostLicenceBytes);
  }
  document_.clear();
  if (options_.text_key.empty() && view.has("segments")) {
    const std::vector<RoleText> segments = segments_from(view["segments"]);
    try {
      encode_segments(*encoder_, segments, options_.specials, document_);
    } catch (const UserError& error) {
      user_error("{}: {}", view["segments"].where(), error.what());
    }
    text_.clear();
    for (const RoleText& segment : segments) text_ += segment.text;
    return add_document(text_, number, licence, Roles::given);
  }
  if (options_.text_key.empty() && view.has("messages")) {
    const std::vector<Message> messages = messages_from(view["messages"]);
    render_chat(*encoder_, messages, options_.specials, document_);
    text_.clear();
    for (const Message& message : messages) text_ += message.role + "\n" + message.content + "\n";
    return add_document(text_, number, licence, Roles::given);
  }
  if (!view.has(text_key)) {
    user_error("{}: expected an object with '{}'{}, found {}", view.where(), text_key, options_.text_key.empty() ? ", 'messages' or 'segments'" : "",
               json.describe());
  }
  const std::string& text = view[text_key].string();
  encoder_->encode(text, options_.specials, document_.tokens);
  if (document_.tokens.empty()) user_error("{}: the text is empty", view.where());
  add_document(text, number, licence, Roles::none);
}

void BlockTokenizer::add_text_file(std::string_view text) {
  if (text.empty()) return add_problem(1, fmt::format("{}: the file is empty", source().name));
  const std::size_t invalid = first_invalid_utf8(text);
  if (invalid < text.size()) {
    const std::int64_t line = 1 + std::count(text.begin(), text.begin() + std::ptrdiff_t(invalid), '\n');
    return add_problem(line, fmt::format("{}:{}: not UTF-8 from byte {} of the file on", source().name, line, invalid + 1));
  }
  document_.clear();
  encoder_->encode(text, options_.specials, document_.tokens);
  add_document(text, 1, "", Roles::none);
}

void BlockTokenizer::add_document(std::string_view text, std::int64_t line, std::string_view licence, Roles roles) {
  DocumentEntry entry;
  entry.line = line;
  entry.tokens = std::int64_t(document_.tokens.size());
  entry.roles = std::int64_t(document_.roles.size());
  entry.licence = licence.empty() ? -1 : licence_number(licence);
  entry.identity = text_identity(text, buffer_);
  if (options_.loss_on && roles == Roles::given) {
    const std::size_t before = record_->counted.size();
    const auto add = [&](std::int64_t begin, std::int64_t end, Role role) {
      if (begin == end || !options_.loss_on->has(role)) return;
      const bool goes_on = record_->counted.size() > before && record_->counted.back().end == begin;
      goes_on ? void(record_->counted.back().end = end) : record_->counted.push_back({begin, end});
    };
    std::int64_t done = 0;
    for (const RoleRun& run : document_.roles) {
      add(done, run.begin, Role::other);
      add(run.begin, run.end, run.role);
      done = run.end;
    }
    add(done, entry.tokens, Role::other);
    entry.counted = std::int64_t(record_->counted.size() - before);
  }
  if (options_.signatures) {
    record_->signatures.resize(record_->signatures.size() + kSignature);
    minhash(text, record_->signatures.data() + record_->signatures.size() - kSignature);
  }
  record_->documents.push_back(entry);
  record_->tokens.insert(record_->tokens.end(), document_.tokens.begin(), document_.tokens.end());
  record_->roles.insert(record_->roles.end(), document_.roles.begin(), document_.roles.end());
}

void BlockTokenizer::add_problem(std::int64_t line, const std::string& what) {
  constexpr std::size_t kMostBytes = 400;  // the parser quotes what it has read, which may be all of the line
  if (std::size_t(record_->skipped++) >= BlockRecord::kMostProblems) return;
  record_->problems.push_back({line, printable(what.substr(0, kMostBytes)) + (what.size() > kMostBytes ? "..." : "")});
}

std::int64_t BlockTokenizer::licence_number(std::string_view licence) {
  std::vector<std::string>& known = record_->licences;
  auto found = std::find(known.begin(), known.end(), licence);
  if (found == known.end()) found = known.insert(known.end(), std::string(licence));
  return found - known.begin();
}

}  // namespace af
