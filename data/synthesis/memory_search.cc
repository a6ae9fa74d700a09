#include "data/synthesis/memory_search.h"

#include <algorithm>
#include <bit>

#include "data/utf8.h"

namespace af {
namespace {

constexpr std::size_t kMostTerms = 32, kMostWords = 64, kMostCounted = 50'000, kSnippetBytes = 300;
constexpr std::int64_t kMostRanked = 20'000;  // pages that a query may rank: what bounds its time

// ASCII letters and digits, and whatever is not ASCII.
bool is_word_byte(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || static_cast<signed char>(c) < 0; }
bool is_ideograph(std::uint32_t code) {
  return (code >= 0x2e80 && code < 0x3000) || (code >= 0x3040 && code < 0xd800) || (code >= 0xf900 && code < 0xfb00) || code >= 0x20000;
}
char lower(char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; }

// Where `word` (lower case) stands in the text as a whole word, but for a suffix.
bool holds(std::string_view text, std::string_view word) {
  const auto same = [](char a, char b) { return lower(a) == b; };
  for (auto at = text.begin();; ++at) {
    at = std::search(at, text.end(), word.begin(), word.end(), same);
    if (at == text.end()) return false;
    if (at == text.begin() || !is_word_byte(at[-1]) || static_cast<signed char>(word[0]) < 0) return true;
  }
}

std::string joined(const std::vector<std::string>& terms, const char* between) {
  std::string expression;
  for (const std::string& term : terms) expression += (expression.empty() ? "" : between) + term;
  return expression;
}

}  // namespace

std::string searchable(std::string_view text) {
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<signed char>(c) >= 0; })) return std::string(text);
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Character character = utf8_character(text, at);
    const std::size_t bytes = std::size_t(std::max(character.bytes, 1));
    const bool own = is_ideograph(character.code_point);
    if (own) out += ' ';
    out.append(text, at, bytes);
    if (own) out += ' ';
    at += bytes;
  }
  return out;
}

SearchWords::SearchWords(std::string_view query) {
  const std::string text = searchable(query);
  std::string term, word;
  bool quoted = false;
  const auto end_word = [&] {
    if (word.empty()) return;
    term += (term.empty() ? "" : " ") + word;
    if (words_.size() < kMostWords && std::find(words_.begin(), words_.end(), word) == words_.end()) words_.push_back(word);
    word.clear();
  };
  const auto end_term = [&] {
    end_word();
    if (term.empty()) return;
    term = "\"" + term + "\"";
    if (std::find(terms_.begin(), terms_.end(), term) == terms_.end() && terms_.size() < kMostTerms) terms_.push_back(term);
    term.clear();
  };
  for (char c : text) {
    if (is_word_byte(c)) {
      word += lower(c);
    } else if (c == '"') {
      end_term();
      quoted = !quoted;
    } else if (!quoted && (c == ' ' || (c >= '\t' && c <= '\r'))) {
      end_term();
    } else {
      end_word();
    }
  }
  end_term();
}

int SearchWords::count_in(std::string_view text) const {
  return int(std::count_if(words_.begin(), words_.end(), [&](const std::string& word) { return holds(text, word); }));
}

std::string SearchWords::snippet(std::span<const std::string> statements) const {
  // held[i]: of the words, as bits (there are 64 at most)
  std::vector<std::uint64_t> held(statements.size(), 0);
  for (std::size_t i = 0; i < statements.size(); ++i) {
    for (std::size_t w = 0; w < words_.size(); ++w) held[i] |= std::uint64_t(holds(statements[i], words_[w])) << w;
  }
  std::string out;
  std::uint64_t said = 0;
  for (int round = 0; round < 2; ++round) {
    std::size_t best = statements.size();
    int most = round == 0 ? -1 : 0;
    for (std::size_t i = 0; i < statements.size(); ++i) {
      if (const int n = std::popcount(held[i] & ~said); n > most) most = n, best = i;
    }
    if (best == statements.size() || (round == 1 && out.size() + statements[best].size() > kSnippetBytes)) break;
    said |= held[best];
    out += (out.empty() ? "" : " ") + statements[best];
  }
  if (out.size() <= kSnippetBytes) return out;
  std::size_t end = kSnippetBytes;
  while (end > 0 && (static_cast<unsigned char>(out[end]) & 0xc0) == 0x80) --end;  // not within a character
  return out.substr(0, end) + "...";
}

MemorySearch::MemorySearch(Database& database)
    : match_(database,
             "SELECT pages.entity FROM pages_text JOIN pages ON pages.id = pages_text.rowid WHERE pages_text MATCH ?1 ORDER BY pages_text.rank LIMIT "
             "?2"),
      count_(database, "SELECT count(*) FROM (SELECT 1 FROM pages_text WHERE pages_text MATCH ?1 LIMIT ?2)") {}

std::int64_t MemorySearch::frequency(const std::string& term, std::int64_t most) {
  if (auto found = frequencies_.find(term); found != frequencies_.end()) return found->second;
  if (frequencies_.size() >= kMostCounted) frequencies_.clear();
  count_.bind(1, term).bind(2, most).step();
  const std::int64_t count = count_.integer(0);
  count_.reset();
  return frequencies_[term] = count;
}

void MemorySearch::match(const std::string& expression, std::size_t limit, std::vector<std::int64_t>& found) {
  constexpr std::int64_t kChunks = 4;  // an entity may have several pages
  match_.bind(1, expression).bind(2, std::int64_t(limit) * kChunks);
  while (found.size() < limit && match_.step()) {
    const std::int64_t entity = match_.integer(0);
    if (std::find(found.begin(), found.end(), entity) == found.end()) found.push_back(entity);
  }
  match_.reset();
}

std::vector<std::int64_t> MemorySearch::find(const SearchWords& words, int limit, std::int64_t pages) {
  std::vector<std::int64_t> found;
  if (words.terms().empty() || limit <= 0) return found;
  if (pages != pages_) frequencies_.clear(), pages_ = pages;
  struct Term {
    std::string text;
    std::int64_t frequency;
  };
  std::vector<Term> terms;
  for (const std::string& term : words.terms()) terms.push_back({term, frequency(term, kMostRanked)});
  std::erase_if(terms, [](const Term& term) { return term.frequency == 0; });
  std::stable_sort(terms.begin(), terms.end(), [](const Term& a, const Term& b) { return a.frequency < b.frequency; });
  std::vector<std::string> all, rare;
  std::int64_t ranked = 0;
  for (const Term& term : terms) {
    all.push_back(term.text);
    ranked += term.frequency;
    if (rare.empty() || ranked <= kMostRanked) rare.push_back(term.text);
  }
  if (all.empty()) return found;
  if (terms.size() == words.terms().size()) match(joined(all, " AND "), std::size_t(limit), found);
  if (found.size() < std::size_t(limit)) match(joined(rare, " OR "), std::size_t(limit), found);
  return found;
}

}  // namespace af
