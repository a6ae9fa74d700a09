#include "data/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>

#include "core/error.h"
#include "data/utf8.h"

namespace af {
namespace {

constexpr char32_t kCodePoints = 0x110000;
constexpr auto kCompose = utf8proc_option_t(UTF8PROC_COMPOSE | UTF8PROC_STABLE);

CharClass class_of(utf8proc_int32_t c) {
  if (c == '\r' || c == '\n') return CharClass::newline;
  if ((c >= 9 && c <= 13) || c == 0x85) return CharClass::space;  // White_Space that is no separator
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::letter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::number;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return CharClass::space;
    default:
      return CharClass::other;
  }
}

int combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

// The canonical decomposition of one code point, appended.
void decompose(utf8proc_int32_t c, std::vector<utf8proc_int32_t>& out) {
  utf8proc_int32_t parts[8];  // the longest has 4 (UAX 15)
  utf8proc_ssize_t count = utf8proc_decompose_char(c, parts, 8, kCompose, nullptr);
  AF_CHECK(count >= 1 && count <= 8, "utf8proc: U+{:04X} has {} parts", c, count);
  out.insert(out.end(), parts, parts + count);
}

std::size_t ascii_prefix(std::string_view text) {
  std::size_t at = 0;
  for (std::uint64_t word; at + 8 <= text.size(); at += 8) {
    std::memcpy(&word, text.data() + at, 8);
    if (word & 0x8080808080808080) break;
  }
  while (at < text.size() && static_cast<signed char>(text[at]) >= 0) ++at;
  return at;
}

}  // namespace

void append_utf8(char32_t c, std::string& out) {
  utf8proc_uint8_t bytes[4];
  out.append(reinterpret_cast<const char*>(bytes), std::size_t(utf8proc_encode_char(utf8proc_int32_t(c), bytes)));
}

UnicodeTables::UnicodeTables() {
  // Inert: of combining class 0, its own normal form, and no second part of any composition. Second parts are among
  // what follows the first code point in some decomposition.
  std::vector<bool> joins(kCodePoints), changes(kCodePoints);
  std::vector<utf8proc_int32_t> parts;
  for (utf8proc_int32_t c = 0; c < utf8proc_int32_t(kCodePoints); ++c) {
    parts.clear();
    decompose(c, parts);
    for (std::size_t i = 1; i < parts.size(); ++i) joins[parts[i]] = true;
    if (parts.size() == 1 && parts[0] == c) continue;
    utf8proc_ssize_t length = utf8proc_normalize_utf32(parts.data(), utf8proc_ssize_t(parts.size()), kCompose);
    changes[c] = length != 1 || parts[0] != c;
  }
  std::map<Page, std::uint16_t> numbers;
  for (char32_t first = 0; first < kCodePoints; first += 256) {
    Page page;
    for (char32_t c = first; c < first + 256; ++c) {
      bool inert = combining_class(utf8proc_int32_t(c)) == 0 && !joins[c] && !changes[c];
      page[c - first] = std::uint8_t(std::uint8_t(class_of(utf8proc_int32_t(c))) | (inert ? kInert : 0));
    }
    auto [entry, is_new] = numbers.try_emplace(page, std::uint16_t(pages_.size()));
    if (is_new) pages_.push_back(page);
    page_of_[first >> 8] = entry->second;
  }
}

std::size_t UnicodeTables::find_not_inert(std::string_view text, std::size_t at) const {
  while (true) {
    at += ascii_prefix(text.substr(at));
    if (at >= text.size()) return text.size();
    for (int i = 0; i < 8 && at < text.size(); ++i) {  // texts that are not ASCII seldom have 8 such bytes in a row
      const Utf8Character c = utf8_character(text, at);
      if (c.bytes > 0 && !(flags(c.code_point) & kInert)) return at;
      at += std::size_t(std::max(c.bytes, 1));
    }
  }
}

std::string_view UnicodeTables::nfc(std::string_view text, std::string& buffer) const {
  std::size_t kept = 0, at = find_not_inert(text, 0);
  if (at == text.size()) return text;
  buffer.clear();
  while (at < text.size()) {
    // A segment: the character before, which may join with this one, and all up to the next inert one.
    std::size_t begin = at, end = at;
    if (at > kept) {
      do --begin;
      while (begin > kept && (text[begin] & 0xc0) == 0x80);
      if (begin + std::size_t(utf8_character(text, begin).bytes) != at) begin = at;  // no UTF-8: joins nothing
    }
    while (end < text.size()) {
      const Utf8Character c = utf8_character(text, end);
      if (c.bytes == 0 || (flags(c.code_point) & kInert)) break;
      end += std::size_t(c.bytes);
    }
    buffer.append(text, kept, begin - kept);
    append_nfc(text.substr(begin, end - begin), buffer);
    kept = end;
    at = find_not_inert(text, end);
  }
  return buffer.append(text, kept);
}

void UnicodeTables::append_nfc(std::string_view segment, std::string& out) const {
  std::vector<utf8proc_int32_t> parts;
  for (std::size_t at = 0; at < segment.size();) {
    const Utf8Character c = utf8_character(segment, at);
    decompose(utf8proc_int32_t(c.code_point), parts);
    at += std::size_t(c.bytes);
  }
  // Canonical order, by a sort: utf8proc's own exchange of neighbours is quadratic.
  for (auto begin = parts.begin(); begin != parts.end();) {
    if (combining_class(*begin) == 0) {
      ++begin;
      continue;
    }
    auto end = std::find_if(begin, parts.end(), [](utf8proc_int32_t c) { return combining_class(c) == 0; });
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
  utf8proc_ssize_t length = utf8proc_normalize_utf32(parts.data(), utf8proc_ssize_t(parts.size()), kCompose);
  AF_CHECK(length >= 0, "utf8proc: {}", utf8proc_errmsg(length));
  for (utf8proc_ssize_t i = 0; i < length; ++i) append_utf8(char32_t(parts[i]), out);
}

std::string fold_case(std::string_view text) {
  utf8proc_uint8_t* mapped = nullptr;
  const auto options = utf8proc_option_t(UTF8PROC_COMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD | UTF8PROC_STABLE);
  const utf8proc_ssize_t bytes = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), utf8proc_ssize_t(text.size()), &mapped, options);
  std::string out;
  if (bytes >= 0) {
    out.assign(reinterpret_cast<const char*>(mapped), std::size_t(bytes));
  } else {
    out = text;
    for (char& c : out) c = c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
  }
  std::free(mapped);
  return out;
}

}  // namespace af
