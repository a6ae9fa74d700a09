#include "data/synthesis/triple_statements.h"

#include <map>

#include "core/error.h"

namespace af {
namespace {

int digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

// "Scotland%27s_bridge" -> "Scotland's bridge"
std::string plain(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const int code = text[i] == '%' && i + 2 < text.size() ? digit(text[i + 1]) * 16 + digit(text[i + 2]) : -1;
    const bool ascii = code >= ' ' && code < 127 && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0;
    out += ascii ? char(code) : text[i] == '_' ? ' ' : text[i];
    i += ascii ? 2 : 0;
  }
  return one_line(out);
}

using Triple = std::array<std::string, 3>;
bool is_variable(std::string_view term) { return term.starts_with("V@"); }

}  // namespace

void TripleReader::add(const JsonView& line, std::vector<Statement>& out) {
  const char* key = line.has("triples") ? "triples" : "formalization";
  if (!line.has(key)) user_error("{}: expected an object with 'triples' or 'formalization'", line.where());
  const std::string answer = line.has("answer") && line["answer"].value().is_string() ? one_line(line["answer"].string()) : "";
  std::vector<Triple> triples;
  std::map<std::string, std::string> names;  // of variables
  for (const Json& entry : line[key].array()) {
    if (!entry.is_array()) user_error("{}: {}: expected lists of three strings, found {}", line.where(), key, entry.describe());
    const Json::Array& parts = entry.array();
    if (parts.size() != 3 || !parts[0].is_string() || !parts[1].is_string() || !parts[2].is_string()) continue;
    Triple triple{parts[0].string(), plain(parts[1].string()), parts[2].string()};
    if (triple[2] == "?" && !answer.empty()) triple[2] = "C@" + answer;
    if (is_variable(triple[0]) && triple[1] == "has name" && triple[2].starts_with("C@")) names[triple[0]] = triple[2];
    triples.push_back(std::move(triple));
  }
  const std::string source = line.has("id") && line["id"].value().is_string() ? name_ + "#" + line["id"].string() : line.where();
  for (Triple& triple : triples) {
    if (triple[1] == "has name") continue;
    bool whole = triple[1].find(" & ") == std::string::npos;
    for (std::string* term : {&triple[0], &triple[2]}) {
      if (auto found = names.find(*term); found != names.end()) *term = found->second;
      whole = whole && !is_variable(*term) && *term != "?" && term->find(" & ") == std::string::npos && term->find("V@") == std::string::npos;
      *term = plain(term->starts_with("C@") ? std::string_view(*term).substr(2) : std::string_view(*term));
      whole = whole && !term->empty() && term->size() <= kMostNameBytes;
    }
    if (!whole || triple[1].empty() || triple[0] == triple[2]) continue;
    out.push_back({triple[0], fmt::format("{} {} {}.", triple[0], triple[1], triple[2]), time_, source, "triple", triple[1], triple[2], false});
  }
}

}  // namespace af
