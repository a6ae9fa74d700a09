#include "data/synthesis/document_statements.h"

#include <algorithm>
#include <array>

#include "core/error.h"

namespace af {
namespace {

constexpr std::size_t kMostNames = 4, kMostNameWords = 6, kLeastWords = 4, kMostWords = 80, kLeastWideBytes = 30;

// Words that point at what was said before, at the beginning of a sentence; lower case.
constexpr std::array<std::string_view, 44> kPointsBack{
    "it",    "its",     "he",     "his",   "she",  "her",  "they", "their",     "this",      "these",    "that",
    "those", "we",      "our",    "i",     "my",   "you",  "your", "here",      "there",     "such",     "however",
    "but",   "and",     "or",     "so",    "then", "thus", "also", "therefore", "hence",     "moreover", "furthermore",
    "both",  "another", "others", "click", "read", "see",  "sign", "please",    "meanwhile", "instead",  "later"};
// Capitalised, but no names by themselves; lower case.
constexpr std::array<std::string_view, 72> kNoNames{
    "a",       "an",       "the",       "in",       "on",      "at",       "by",     "for",    "from",      "to",      "of",       "with",
    "as",      "after",    "before",    "when",     "while",   "where",    "which",  "who",    "what",      "why",     "how",      "if",
    "all",     "some",     "many",      "most",     "each",    "every",    "one",    "two",    "three",     "first",   "second",   "although",
    "since",   "during",   "because",   "despite",  "between", "under",    "until",  "upon",   "according", "while",   "no",       "not",
    "january", "february", "march",     "april",    "may",     "june",     "july",   "august", "september", "october", "november", "december",
    "monday",  "tuesday",  "wednesday", "thursday", "friday",  "saturday", "sunday", "mr",     "mrs",       "dr",      "ms",       "st"};
constexpr std::array<std::string_view, 16> kAbbreviations{"mr", "mrs", "ms", "dr", "st",  "prof", "vs", "etc",
                                                          "no", "vol", "jr", "sr", "inc", "ltd",  "co", "approx"};
constexpr std::array<std::string_view, 8> kJoins{"of", "the", "de", "von", "van", "la", "du", "and"};  // within a name, between capitals

std::string lower(std::string_view word) {
  std::string out(word);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? char(c + 32) : c;
  return out;
}
template <class List>
bool among(const List& list, std::string_view word) {
  return std::find(list.begin(), list.end(), lower(word)) != list.end();
}
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return is_upper(c) || (c >= 'a' && c <= 'z') || static_cast<signed char>(c) < 0; }

// The bytes of a wide full stop or exclamation mark at `at`; 0: none.
std::size_t wide_stop(std::string_view text, std::size_t at) {
  const std::string_view here = text.substr(at, 3);
  return here == "\u3002" || here == "\uff01" || here == "\uff1f" ? 3 : 0;
}

// Whether the full stop at `at` ends a sentence: not after an initial or abbreviation, and what follows begins one.
bool ends_sentence(std::string_view text, std::size_t at) {
  if (at + 1 < text.size() && text[at + 1] != ' ' && text[at + 1] != '"' && text[at + 1] != ')' && text[at + 1] != '\'') return false;
  std::size_t begin = at;
  while (begin > 0 && is_letter(text[begin - 1])) --begin;
  const std::string_view word = text.substr(begin, at - begin);
  if (text[at] == '.' && ((word.size() == 1 && is_upper(word[0])) || among(kAbbreviations, word))) return false;
  if (text[at] == '.' && begin > 0 && text[begin - 1] == '.' && word.size() <= 1) return false;  // e.g. U.S.
  std::size_t next = at + 1;
  while (next < text.size() && (text[next] == ' ' || text[next] == '"' || text[next] == '\'' || text[next] == '(' || text[next] == ')')) ++next;
  return next == text.size() || !(text[next] >= 'a' && text[next] <= 'z');
}

// The words between spaces, without the punctuation around them.
struct Word {
  std::string_view text;
  bool ends_name;    // punctuation or a bracket follows
  bool starts_name;  // a bracket or quote stood before
};
std::vector<Word> words_of(std::string_view sentence) {
  std::vector<Word> words;
  while (!sentence.empty()) {
    const std::size_t end = std::min(sentence.find(' '), sentence.size());
    std::string_view word = sentence.substr(0, end);
    sentence.remove_prefix(std::min(end + 1, sentence.size()));
    bool before = false, after = false;
    while (!word.empty() && !is_letter(word.front()) && !is_digit(word.front())) word.remove_prefix(1), before = true;
    while (!word.empty() && !is_letter(word.back()) && !is_digit(word.back())) word.remove_suffix(1), after = true;
    if (word.ends_with("'s")) word.remove_suffix(2), after = true;
    if (word.ends_with("\u2019s")) word.remove_suffix(4), after = true;
    if (!word.empty()) words.push_back({word, after, before});
    if (word.empty() && !words.empty()) words.back().ends_name = true;
  }
  return words;
}

bool is_declarative(const std::string& sentence) {
  if (sentence.size() > kMostTextBytes || sentence.find("...") != std::string::npos || sentence.find("\u2026") != std::string::npos) return false;
  if (sentence.ends_with("\u3002") || sentence.ends_with("\uff01")) return sentence.size() >= kLeastWideBytes;
  const char last = sentence.back();
  if (last != '.' && last != '!' && !((last == '"' || last == ')' || last == '\'') && sentence.find('.', sentence.size() - 2) != std::string::npos))
    return false;
  if (!is_upper(sentence[0]) && !is_digit(sentence[0]) && sentence[0] != '"' && static_cast<signed char>(sentence[0]) >= 0) return false;
  const std::vector<Word> words = words_of(sentence);
  return words.size() >= kLeastWords && words.size() <= kMostWords && !among(kPointsBack, words[0].text);
}

}  // namespace

std::vector<std::string> declarative_sentences(std::string_view text) {
  std::vector<std::string> sentences;
  while (!text.empty()) {
    // A line that ends without a full stop, or the lines of a list, are no part of the next one.
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string line = one_line(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    while (!line.empty() && (line[0] == '*' || line[0] == '-' || line[0] == '#' || line[0] == ' ' || line[0] == '>')) line.erase(0, 1);
    std::size_t begin = 0;
    for (std::size_t at = 0; at < line.size(); ++at) {
      const std::size_t wide = wide_stop(line, at);
      if (wide == 0 && !((line[at] == '.' || line[at] == '!' || line[at] == '?') && ends_sentence(line, at))) continue;
      std::size_t stop = at + std::max<std::size_t>(wide, 1);
      while (wide == 0 && stop < line.size() && (line[stop] == '"' || line[stop] == ')' || line[stop] == '\'')) ++stop;
      const std::string sentence = one_line(std::string_view(line).substr(begin, stop - begin));
      if (!sentence.empty() && is_declarative(sentence)) sentences.push_back(sentence);
      begin = stop, at = stop - 1;
    }
  }
  return sentences;
}

std::vector<std::string> names_in(std::string_view sentence) {
  std::vector<std::string> names;
  const std::vector<Word> words = words_of(sentence);
  for (std::size_t i = 0; i < words.size() && names.size() < kMostNames;) {
    const auto capital = [&](std::size_t at) { return at < words.size() && is_upper(words[at].text[0]) && !among(kNoNames, words[at].text); };
    if (!capital(i) || (i == 0 && among(kPointsBack, words[i].text))) {
      ++i;
      continue;
    }
    std::size_t end = i + 1;  // of the name
    while (end - i < kMostNameWords && !words[end - 1].ends_name) {
      if (capital(end) && !words[end].starts_name) {
        ++end;
      } else if (end + 1 < words.size() && among(kJoins, words[end].text) && words[end].text != "and" && !words[end].ends_name && capital(end + 1)) {
        end += 2;
      } else {
        break;
      }
    }
    std::string name(words[i].text.data(), words[end - 1].text.data() + words[end - 1].text.size());
    // One word at the beginning of a sentence may be capitalised for that alone.
    const bool sure = i > 0 || end - i > 1 || std::count_if(name.begin(), name.end(), is_upper) > 1;
    if (sure && name.size() > 2 && name.size() <= kMostNameBytes && std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    i = end;
  }
  return names;
}

void add_page_statements(const PageText& page, std::vector<Statement>& out) {
  std::string title = one_line(page.title);
  if (title.empty() || title.size() > kMostNameBytes) title = page.url.substr(0, kMostNameBytes);
  for (const std::string& sentence : declarative_sentences(page.text)) {
    if (!title.empty()) out.push_back({title, sentence, page.time, page.url, page.style, "", "", !page.url.empty()});
    for (const std::string& name : names_in(sentence)) {
      if (name != title) out.push_back({name, sentence, page.time, page.url, page.style, "", "", false});
    }
  }
}

DocumentPage document_page(const JsonView& line, const std::string& time) {
  const auto text = [&](const char* key) { return line.has(key) && !line[key].value().is_null() ? one_line(line[key].string()) : std::string(); };
  if (!line.has("text")) user_error("{}: expected an object with 'text' (and 'title', 'url', 'date')", line.where());
  line["text"].string();
  DocumentPage page{text("title"), text("url"), text("date"), line.where()};
  if (page.title.empty() && page.url.empty()) page.title = page.where;
  if (page.time.empty()) page.time = time;
  return page;
}

void DocumentReader::add(const JsonView& line, std::vector<Statement>& out) {
  const DocumentPage page = document_page(line, time_);
  add_page_statements({page.title, page.url, page.time, "prose", line["text"].string()}, out);
}

}  // namespace af
