#include "data/synthesis/answer_match.h"

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

#include "data/unicode.h"

namespace af {
namespace {

// Case folded, typographic dashes and quotation marks as on a keyboard.
std::string folded(std::string_view text) {
  constexpr std::pair<std::string_view, std::string_view> kMarks[] = {
      {"\xe2\x80\x90", "-"}, {"\xe2\x80\x91", "-"}, {"\xe2\x80\x92", "-"}, {"\xe2\x80\x93", "-"},  {"\xe2\x80\x94", " - "}, {"\xe2\x88\x92", "-"},
      {"\xe2\x80\x98", "'"}, {"\xe2\x80\x99", "'"}, {"\xe2\x80\x9c", "\""}, {"\xe2\x80\x9d", "\""}, {"\xe3\x80\x81", ", "},  {"\xe3\x80\x82", ". "}};
  std::string out = fold_case(text);
  for (const auto& [mark, plain] : kMarks)
    for (std::size_t at = 0; (at = out.find(mark, at)) != out.npos; at += plain.size()) out.replace(at, mark.size(), plain);
  return out;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// A mark that belongs to the number or word it stands in: 4.2, 1,000, 2025-06, -3, apt-get, O'Hara.
bool inside_word(std::string_view text, std::size_t i) {
  const bool before = i > 0, after = i + 1 < text.size();
  const auto word = [&](std::size_t at) { return is_digit(text[at]) || (text[at] >= 'a' && text[at] <= 'z') || (text[at] & 0x80); };
  switch (text[i]) {
    case '.': case ':': case '/': case '@': case '_': case '+': return before && after && word(i - 1) && word(i + 1);
    case ',': return before && after && is_digit(text[i - 1]) && is_digit(text[i + 1]);
    case '-': return after && word(i + 1) && (before ? word(i - 1) || (text[i - 1] == ' ' && is_digit(text[i + 1])) : is_digit(text[i + 1]));
    case '%': return before && is_digit(text[i - 1]);
    default: return false;
  }
}

// Of a number its shortest form; any other word as it is.
std::string number_or_word(std::string_view word) {
  std::string digits;
  for (std::size_t i = 0; i < word.size(); ++i) {  // thousands: three digits after the comma
    const bool separator = word[i] == ',' && i > 0 && word.size() - i > 3 && is_digit(word[i + 1]) && is_digit(word[i + 2]) && is_digit(word[i + 3]) &&
                           (word.size() - i == 4 || !is_digit(word[i + 4]));
    if (!separator) digits += word[i];
  }
  double value = 0;
  const bool plain = digits.find_first_not_of("0123456789.-") == digits.npos && digits.size() < 16;  // exact in a double
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (!plain || error != std::errc() || end != digits.data() + digits.size()) return digits;
  if (value == 0) return "0";  // "-0" too; numeric code is compiled without signed zeros, so the sign would stay
  char buffer[32];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr};
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty() && word != "a" && word != "an" && word != "the") words.push_back(number_or_word(word));
    word.clear();
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool letter = is_digit(c) || (c >= 'a' && c <= 'z') || (c & 0x80) || inside_word(text, i);
    if (letter) word += c;
    else if (c != '\'' && c != '`') end_word();  // "O'Hara" is one word
  }
  end_word();
  return words;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

// The items of a list, each normalised, sorted; a text that is none is one item.
std::vector<std::string> items_of(std::string_view text) {
  std::string list = folded(text);
  for (std::size_t at; (at = list.find(" and ")) != list.npos;) list.replace(at, 5, " ; ");
  std::vector<std::string> items;
  std::size_t begin = 0;
  for (std::size_t i = 0; i <= list.size(); ++i) {
    const bool end = i == list.size() || list[i] == ';' || list[i] == '\n' || (list[i] == ',' && !inside_word(list, i));
    if (!end) continue;
    if (std::string item = joined(words_of(std::string_view(list).substr(begin, i - begin))); !item.empty()) items.push_back(std::move(item));
    begin = i + 1;
  }
  std::sort(items.begin(), items.end());
  return items;
}

}  // namespace

std::string normalised_answer(std::string_view text) { return joined(words_of(folded(text))); }

bool answers_match(std::string_view answer, std::string_view right) {
  const std::string a = normalised_answer(answer), b = normalised_answer(right);
  return !a.empty() && !b.empty() && (a == b || items_of(answer) == items_of(right));
}

bool answers_match(std::string_view answer, std::string_view right, std::span<const std::string> other_right_ones) {
  if (answers_match(answer, right)) return true;
  return std::any_of(other_right_ones.begin(), other_right_ones.end(), [&](const std::string& other) { return answers_match(answer, other); });
}

bool mentions(std::string_view text, std::string_view words) {
  if (words.empty()) return false;
  const auto spaceless = [](char c) { return (c & 0x80) != 0; };
  for (std::size_t at = text.find(words); at != text.npos; at = text.find(words, at + 1)) {
    const std::size_t end = at + words.size();
    const bool begins = at == 0 || text[at - 1] == ' ' || (spaceless(text[at - 1]) && spaceless(words.front()));
    const bool ends = end == text.size() || text[end] == ' ' || (spaceless(text[end]) && spaceless(words.back()));
    if (begins && ends) return true;
  }
  return false;
}

}  // namespace af
