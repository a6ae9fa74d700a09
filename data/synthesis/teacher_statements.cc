#include "data/synthesis/teacher_statements.h"

#include <algorithm>

#include "core/error.h"
#include "data/synthesis/in_order.h"
#include "data/synthesis/reply.h"

namespace af {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? char(c + 32) : c;
  return out;
}

// Every run of digits of `text` is one of `source`.
bool numbers_occur(std::string_view text, std::string_view source) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (!is_digit(text[at])) continue;
    std::size_t end = at;
    while (end < text.size() && is_digit(text[end])) ++end;
    const std::string_view number = text.substr(at, end - at);
    std::size_t found = source.find(number);
    while (found != std::string_view::npos &&
           ((found > 0 && is_digit(source[found - 1])) || (found + number.size() < source.size() && is_digit(source[found + number.size()])))) {
      found = source.find(number, found + 1);
    }
    if (found == std::string_view::npos) return false;
    at = end;
  }
  return true;
}

}  // namespace

std::vector<Statement> statements_in(std::string_view reply, const PageText& page) {
  std::vector<Statement> found;
  const std::string lines = last_in_tag(reply, "statements").value_or(""), known = lower(page.title + "\n" + std::string(page.text));
  for (std::string_view rest = lines; !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const std::size_t first = line.find(" | "), second = first == std::string_view::npos ? first : line.find(" | ", first + 3);
    if (second == std::string_view::npos) continue;
    const std::string entity = one_line(line.substr(0, first)), time = one_line(line.substr(first + 3, second - first - 3)),
                      text = one_line(line.substr(second + 3));
    if (entity.empty() || entity.size() > kMostNameBytes || text.size() > kMostTextBytes || std::count(text.begin(), text.end(), ' ') < 2) continue;
    if (known.find(lower(entity)) == std::string::npos || !numbers_occur(text, known)) continue;
    found.push_back(
        {entity, text, time.empty() || time == "-" ? page.time : time, page.url, "teacher", "", "", !page.url.empty() && entity == page.title});
  }
  return found;
}

void TeacherDocumentReader::add(const JsonView& line, std::vector<Statement>&) {
  const DocumentPage page = document_page(line, time_);
  for (std::string_view rest = line["text"].string(); !rest.empty();) {
    std::size_t end = std::min(rest.size(), options_.part_bytes);
    if (end < rest.size()) {
      if (const std::size_t cut = rest.substr(0, end).rfind('\n'); cut != std::string_view::npos && cut > end / 2) end = cut + 1;
      while (end > 1 && (static_cast<unsigned char>(rest[end]) & 0xc0) == 0x80) --end;  // not within a character
    }
    parts_.push_back({page, std::string(rest.substr(0, end))});
    rest.remove_prefix(end);
  }
}

void TeacherDocumentReader::read(const TextBlock& block, ReadStatements& out) {
  parts_.clear();
  JsonLineReader::read(block, out);
  struct Read {
    std::vector<Statement> statements;
    std::string where, refused;
  };
  std::size_t next = 0;
  in_order<const Part*, Read>(
      options_.threads, [&] { return next < parts_.size() ? std::optional<const Part*>(&parts_[next++]) : std::nullopt; },
      [&](const Part*& part) {
        ChatRequest request;
        request.messages = {{"user", prompts_.fill("memory_statements", {{"title", part->page.title}, {"text", part->text}})}};
        request.temperature = options_.temperature, request.max_tokens = options_.max_tokens, request.seed = options_.seed;
        request.purpose = "memory.statements";
        Read read;
        read.where = part->page.where;
        try {
          read.statements = statements_in(teacher_.chat(request).text, {part->page.title, part->page.url, part->page.time, "", part->text});
        } catch (const TeacherError& error) {
          if (error.kind != TeacherError::Kind::refused) throw;
          read.refused = error.what();
        }
        return read;
      },
      [&](Read& read) {
        if (!read.refused.empty()) out.add_problem(0, read.where + ": the teacher refused it: " + read.refused);
        out.statements.insert(out.statements.end(), read.statements.begin(), read.statements.end());
      },
      [&] { teacher_.stop(); });
}

}  // namespace af
