#include "data/synthesis/world.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "data/synthesis/memory_search.h"

namespace af {
namespace {

constexpr std::string_view kScheme = "memory://entity/", kBetween = "\n=======\n";

// "</tool_response>" -> "< /tool_response>", likewise the tag that opens.
void append_safely(std::string_view text, std::string& out) {
  for (std::size_t at = 0;;) {
    const std::size_t tag = std::min(text.find("tool_response>", at), text.size());
    const bool broken = tag < text.size() && tag > 0 && (text[tag - 1] == '<' || text.substr(tag < 2 ? 0 : tag - 2, 2) == "</");
    const std::size_t end = !broken ? tag : text[tag - 1] == '<' ? tag : tag - 1;
    out.append(text, at, end - at);
    if (tag == text.size()) return;
    if (broken) out += ' ';
    const std::size_t next = tag + 1;
    out.append(text, end, next - end);
    at = next;
  }
}

int hex_digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool code = text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0;
    out += code ? char(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2])) : text[i];
    i += code ? 2 : 0;
  }
  return out;
}

// Strings of an argument; nullopt: it is neither a string nor a list of strings.
std::optional<std::vector<std::string>> strings_of(const Json& arguments, std::string_view key) {
  const Json* value = arguments.find(key);
  if (!value) return std::nullopt;
  if (value->is_string()) return std::vector{value->string()};
  if (!value->is_array() || value->array().empty()) return std::nullopt;
  std::vector<std::string> out;
  for (const Json& item : value->array()) {
    if (!item.is_string()) return std::nullopt;
    out.push_back(item.string());
  }
  return out;
}

}  // namespace

std::string render_results(std::string_view query, std::span<const SearchResult> results) {
  std::string out = "A search for '";
  append_safely(query, out);
  out += fmt::format("' found {} results{}", results.size(), results.empty() ? "." : ":\n\n## Web Results");
  for (std::size_t i = 0; i < results.size(); ++i) {
    out += fmt::format("\n{}. [", i + 1);
    append_safely(results[i].title, out);
    out += "](";
    append_safely(results[i].url, out);
    out += ")\n\n";
    append_safely(results[i].snippet, out);
    out += "\n";
  }
  return out;
}

std::string render_page(std::string_view url, std::string_view goal, std::string_view title, std::span<const std::string> statements,
                        std::size_t most_statements) {
  std::vector<std::size_t> shown(statements.size());
  std::iota(shown.begin(), shown.end(), std::size_t{0});
  const SearchWords words(goal);
  if (shown.size() > most_statements) {
    std::vector<int> fit(statements.size());
    for (std::size_t i = 0; i < fit.size(); ++i) fit[i] = words.count_in(statements[i]);
    std::stable_sort(shown.begin(), shown.end(), [&](std::size_t a, std::size_t b) { return fit[a] > fit[b]; });
    shown.resize(most_statements);
    std::sort(shown.begin(), shown.end());
  }
  std::string out = "The useful information in ";
  append_safely(url, out);
  out += " for user goal ";
  append_safely(goal, out);
  out += " as follows: \n\nEvidence in page: \n";
  append_safely(title, out);
  for (std::size_t i : shown) {
    out += "\n* ";
    append_safely(statements[i], out);
  }
  if (shown.size() < statements.size()) out += fmt::format("\n* ({} further statements)", statements.size() - shown.size());
  out += "\n\nSummary: \n";
  append_safely(words.snippet(statements), out);
  return out + "\n";
}

std::string World::page_url(std::int64_t entity) {
  std::string url = memory_.entity_url(entity);
  return url.empty() ? std::string(kScheme) + memory_.entity_name(entity) : url;
}

std::optional<std::int64_t> World::entity_at(const std::string& url) {
  if (!url.starts_with(kScheme)) return memory_.find_page(url);
  const std::string_view name = std::string_view(url).substr(kScheme.size());
  if (std::optional<std::int64_t> entity = memory_.find_entity(name)) return entity;
  return memory_.find_entity(percent_decoded(name));
}

std::string World::search(const std::string& query) {
  std::vector<SearchResult> results;
  for (Memory::Found& found : memory_.search(query, options_.results)) {
    std::string url = found.url.empty() ? std::string(kScheme) + found.title : std::move(found.url);
    results.push_back({std::move(found.title), std::move(url), std::move(found.snippet)});
  }
  return render_results(query, results);
}

std::string World::visit(const std::string& url, const std::string& goal) {
  const std::optional<std::int64_t> entity = entity_at(url);
  if (!entity) {
    std::string out = "The page ";
    append_safely(url, out);
    return out + " could not be read: there is no such page. Search first, and visit a page that was found.\n";
  }
  return render_page(url, goal, memory_.entity_name(*entity), memory_.texts_of(*entity), options_.statements);
}

std::string World::call(const ToolCall& call) {
  const bool searches = call.name == "search";
  if (!searches && call.name != "visit") return "There is no tool '" + call.name + "' here; there are search and visit.";
  const char* key = searches ? "query" : "url";
  const auto asked = strings_of(call.arguments, key);
  if (!asked) return fmt::format("{}: expected \"{}\": a list of strings.", call.name, key);
  const Json* goal = call.arguments.find("goal");
  const std::string wanted = goal && goal->is_string() ? goal->string() : "";
  std::string out;
  for (std::size_t i = 0; i < std::min(asked->size(), options_.most_queries); ++i)
    out += (i == 0 ? "" : std::string(kBetween)) + (searches ? search((*asked)[i]) : visit((*asked)[i], wanted));
  return out;
}

}  // namespace af
