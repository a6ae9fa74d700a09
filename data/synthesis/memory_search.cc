#include "data/synthesis/memory_search.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "data/utf8.h"

namespace af {
namespace {

constexpr std::size_t kMostTerms = 32, kMostWords = 64, kSnippetBytes = 300;
constexpr std::size_t kMostCached = 16 << 20, kListOverhead = 40;  // entries of lists that are kept
constexpr std::size_t kMostCandidates = 20'000;                    // entities that are ranked, unless one word alone has more
constexpr double kSaturation = 1.2, kLengthWeight = 0.5, kNameWeight = 3;

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

// The first element not below `value`, near `from` as a rule: doubling steps, then a binary search.
template <class Iterator>
Iterator first_not_below(Iterator from, Iterator end, std::uint32_t value) {
  std::ptrdiff_t step = 1;
  while (end - from > step && from[step] < value) from += step, step *= 2;
  return std::lower_bound(from, end - from > step ? from + step + 1 : end, value);
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
    : pages_(database, "SELECT id, entity, bytes FROM pages"), match_(database, "SELECT rowid FROM pages_text WHERE pages_text MATCH ?1") {}

void MemorySearch::load(std::int64_t pages) {
  if (std::int64_t(entity_of_.size()) == pages + 1) return;
  postings_.clear(), cached_ = 0;
  entity_of_.assign(std::size_t(pages) + 1, 0);
  bytes_of_.assign(1, 0);
  double sum = 0;
  while (pages_.step()) {
    const std::size_t page = std::size_t(pages_.integer(0)), entity = std::size_t(pages_.integer(1));
    if (page >= entity_of_.size()) continue;  // another process adds: it is seen by the next load
    if (entity >= bytes_of_.size()) bytes_of_.resize(entity + 1, 0);
    entity_of_[page] = std::uint32_t(entity);
    bytes_of_[entity] += std::uint32_t(pages_.integer(2));
    sum += double(pages_.integer(2));
  }
  pages_.reset();
  entities_ = std::size_t(std::count_if(bytes_of_.begin(), bytes_of_.end(), [](std::uint32_t bytes) { return bytes > 0; }));
  mean_bytes_ = std::max(1.0, sum / double(std::max<std::size_t>(entities_, 1)));
}

std::vector<std::uint32_t> MemorySearch::entities_with(const std::string& expression) {
  std::vector<std::uint32_t> found;
  match_.bind(1, expression);
  while (match_.step()) {
    const std::size_t page = std::size_t(match_.integer(0));
    if (page < entity_of_.size()) found.push_back(entity_of_[page]);
  }
  match_.reset();
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

const MemorySearch::Postings& MemorySearch::postings(const std::string& term) {
  if (auto found = postings_.find(term); found != postings_.end()) return found->second;
  Postings& lists = postings_[term];
  lists.held = entities_with(term);
  if (!lists.held.empty()) lists.named = entities_with("name : " + term);
  cached_ += lists.held.size() + lists.named.size() + kListOverhead;
  return lists;
}

std::vector<std::int64_t> MemorySearch::find(const SearchWords& words, int limit, std::int64_t pages) {
  load(pages);
  if (cached_ > kMostCached) postings_.clear(), cached_ = 0;
  std::vector<const Postings*> terms;
  for (const std::string& term : words.terms()) {
    if (const Postings& lists = postings(term); !lists.held.empty()) terms.push_back(&lists);
  }
  std::stable_sort(terms.begin(), terms.end(), [](const Postings* a, const Postings* b) { return a->held.size() < b->held.size(); });

  // The rarer words say who may be found; the commoner ones only add to their scores.
  std::vector<std::uint32_t> candidates;
  for (const Postings* term : terms) {
    if (!candidates.empty() && candidates.size() + term->held.size() > kMostCandidates) break;
    std::vector<std::uint32_t> all;
    std::set_union(candidates.begin(), candidates.end(), term->held.begin(), term->held.end(), std::back_inserter(all));
    candidates.swap(all);
  }
  // score = sum over words of idf (k + 1) w / (w + k (1 - b + b length / mean)), w = 1, or 3 in a name, idf = ln(1 + (N - n + 1/2) / (n + 1/2))
  struct Scored {
    double score;
    std::uint32_t entity;
    bool operator<(const Scored& other) const { return score != other.score ? score > other.score : entity < other.entity; }
  };
  std::vector<Scored> scored;
  scored.reserve(candidates.size());
  for (std::uint32_t entity : candidates) scored.push_back({0, entity});
  for (const Postings* term : terms) {
    const double n = double(term->held.size()), idf = std::log(1 + (double(entities_) - n + 0.5) / (n + 0.5));
    auto held = term->held.begin(), named = term->named.begin();
    for (Scored& s : scored) {
      held = first_not_below(held, term->held.end(), s.entity);
      if (held == term->held.end()) break;
      if (*held != s.entity) continue;
      named = first_not_below(named, term->named.end(), s.entity);
      const double w = named != term->named.end() && *named == s.entity ? kNameWeight : 1;
      s.score += idf * (kSaturation + 1) * w / (w + kSaturation * (1 - kLengthWeight + kLengthWeight * double(bytes_of_[s.entity]) / mean_bytes_));
    }
  }
  const std::size_t most = std::min(scored.size(), std::size_t(std::max(limit, 0)));
  std::partial_sort(scored.begin(), scored.begin() + std::ptrdiff_t(most), scored.end());
  std::vector<std::int64_t> found;
  for (std::size_t i = 0; i < most; ++i) found.push_back(scored[i].entity);
  return found;
}

}  // namespace af
