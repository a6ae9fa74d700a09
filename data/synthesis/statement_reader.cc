#include "data/synthesis/statement_reader.h"

#include "core/error.h"
#include "data/utf8.h"

namespace af {

void ReadStatements::add_problem(std::int64_t line, const std::string& what) {
  constexpr std::size_t kMostBytes = 400;  // the parser quotes what it has read, which may be all of the line
  if (std::size_t(skipped++) >= kMostProblems) return;
  problems.push_back({line, printable(what.substr(0, kMostBytes)) + (what.size() > kMostBytes ? "..." : "")});
}

void JsonLineReader::read(const TextBlock& block, ReadStatements& out) {
  for_each_line(block, out, [&](std::string_view line, std::int64_t number) {
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) return;
    const std::size_t before = out.statements.size();
    try {
      const Json json = Json::parse(line, name_, number);
      if (!json.is_object()) user_error("{}:{}: expected an object, found {}", name_, number, json.describe());
      add(JsonView(json, fmt::format("{}:{}", name_, number)), out.statements);
    } catch (const UserError& error) {
      out.statements.resize(before);
      out.add_problem(number, error.what());
    }
  });
}

std::string one_line(std::string_view text) {
  std::string out;
  for (char c : text) {
    const bool space = static_cast<unsigned char>(c) <= ' ' || c == 0x7f;
    if (!space) {
      out += c;
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  if (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

}  // namespace af
