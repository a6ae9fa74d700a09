// Normalisation and the split into words, each against its definition.
#include <gtest/gtest.h>
#include <utf8proc.h>

#include <cstdlib>
#include <optional>
#include <random>

#include "data/unicode.h"
#include "data/utf8.h"
#include "data/word_split.h"

namespace af {
namespace {

std::string utf8(char32_t c) {
  std::string text;
  append_utf8(c, text);
  return text;
}

TEST(Nfc, PublishedExamples) {  // UAX 15, figures 3 to 6, and Hangul
  const UnicodeTables unicode;
  std::string buffer;
  const std::pair<const char*, const char*> examples[] = {{"\u212b", "\u00c5"},
                                                          {"\u2126", "\u03a9"},
                                                          {"A\u030a", "\u00c5"},
                                                          {"o\u0302", "\u00f4"},
                                                          {"s\u0323\u0307", "\u1e69"},
                                                          {"s\u0307\u0323", "\u1e69"},
                                                          {"\u1e0b\u0323", "\u1e0d\u0307"},
                                                          {"q\u0307\u0323", "q\u0323\u0307"},
                                                          {"\ufb01", "\ufb01"},
                                                          {"2\u2075", "2\u2075"},
                                                          {"\u1e9b\u0323", "\u1e9b\u0323"},
                                                          {"\u1100\u1161\u11a8", "\uac01"},
                                                          {"\uac00\u11a8", "\uac01"},
                                                          {"\u0958", "\u0915\u093c"},
                                                          {"=\u0338", "\u2260"},
                                                          {"", ""},
                                                          {"plain", "plain"},
                                                          {"\u0301", "\u0301"},
                                                          {"x\u0301\u0301", "x\u0301\u0301"},
                                                          {"e\u0301e\u0301", "\u00e9\u00e9"}};
  for (const auto& [text, expected] : examples) EXPECT_EQ(unicode.nfc(text, buffer), expected) << text;
  const std::string plain = "in NFC already: \u00e9\u4e2d\uac01";
  EXPECT_EQ(unicode.nfc(plain, buffer).data(), plain.data());  // no copy
  EXPECT_EQ(unicode.nfc("e\xcc"
                        "e\u0301\xff\u0301",
                        buffer),
            "e\xcc\u00e9\xff\u0301");  // bytes that are no UTF-8 stay, and join nothing
}

TEST(Nfc, RandomTextsAgainstUtf8proc) {
  const UnicodeTables unicode;
  std::vector<char32_t> tricky;  // all that decomposes, joins or is ordered
  for (char32_t c = 0; c < 0x30000; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    utf8proc_int32_t parts[8];
    if (utf8proc_get_property(utf8proc_int32_t(c))->combining_class != 0 ||
        utf8proc_decompose_char(utf8proc_int32_t(c), parts, 8, UTF8PROC_DECOMPOSE, nullptr) > 1 || (c >= 0x1100 && c < 0x1200)) {
      tricky.push_back(c);
    }
  }
  ASSERT_GT(tricky.size(), 12000u);
  std::mt19937 random(1);
  for (int trial = 0; trial < 20000; ++trial) {
    std::string text, buffer;
    for (unsigned n = 1 + random() % 8; n > 0; --n)
      text += random() % 4 == 0 ? utf8("ae\u00e9o=\u1100\uac00\u09c7"[0] + random() % 50) : utf8(tricky[random() % tricky.size()]);
    utf8proc_uint8_t* expected = utf8proc_NFC(reinterpret_cast<const utf8proc_uint8_t*>(text.c_str()));
    ASSERT_EQ(unicode.nfc(text, buffer), std::string_view(reinterpret_cast<const char*>(expected))) << text;
    std::free(expected);
  }
}

// The pattern, alternative by alternative, each tried from its longest match down.
class NaiveSplitter {
 public:
  NaiveSplitter(const UnicodeTables& unicode, std::string_view text) {
    for (std::size_t at = 0; at < text.size();) {
      const Utf8Character c = utf8_character(text, at);
      const CharClass kind = c.bytes == 0 ? CharClass::other : unicode.char_class(c.code_point);
      const std::size_t bytes = c.bytes == 0 ? 1 : std::size_t(c.bytes);
      chars_.push_back({std::string(text.substr(at, bytes)), kind});
      at += bytes;
    }
  }
  std::vector<std::string> words() const {
    std::vector<std::string> words;
    for (std::size_t at = 0; at < chars_.size();) {
      const std::size_t end = match(at);
      std::string word;
      for (; at < end; ++at) word += chars_[at].text;
      words.push_back(word);
    }
    return words;
  }

 private:
  struct Char {
    std::string text;
    CharClass kind;
  };
  bool letter(std::size_t i) const { return i < chars_.size() && chars_[i].kind == CharClass::letter; }
  bool number(std::size_t i) const { return i < chars_.size() && chars_[i].kind == CharClass::number; }
  bool newline(std::size_t i) const { return i < chars_.size() && chars_[i].kind == CharClass::newline; }
  bool space(std::size_t i) const { return i < chars_.size() && (chars_[i].kind == CharClass::space || newline(i)); }
  bool symbol(std::size_t i) const { return i < chars_.size() && !letter(i) && !number(i) && !space(i); }

  std::size_t match(std::size_t at) const {
    for (const char* ending : {"s", "t", "re", "ve", "m", "ll", "d"}) {
      std::size_t i = at;
      if (chars_[i++].text != "'") break;
      const char* wanted = ending;
      for (; *wanted && i < chars_.size(); ++wanted, ++i) {
        const std::string& c = chars_[i].text;
        if (c != std::string(1, *wanted) && c != std::string(1, char(*wanted - 32)) && !(*wanted == 's' && c == "\u017f")) break;
      }
      if (!*wanted) return i;
    }
    for (std::size_t prefix : {1, 0}) {  // [^\r\n\p{L}\p{N}]?\p{L}+
      std::size_t i = at + prefix;
      if (prefix == 1 && (newline(at) || letter(at) || number(at))) continue;
      while (letter(i)) ++i;
      if (i > at + prefix) return i;
    }
    if (number(at)) return at + 1;
    for (std::size_t prefix : {1, 0}) {  // " ?[^\s\p{L}\p{N}]+[\r\n]*"
      std::size_t i = at + prefix;
      if (prefix == 1 && chars_[at].text != " ") continue;
      while (symbol(i)) ++i;
      if (i == at + prefix) continue;
      while (newline(i)) ++i;
      return i;
    }
    std::size_t spaces = 0;
    while (space(at + spaces)) ++spaces;
    for (std::size_t n = spaces + 1; n-- > 0;) {  // \s*[\r\n]+
      std::size_t i = at + n;
      while (newline(i)) ++i;
      if (i > at + n) return i;
    }
    for (std::size_t n = spaces; n > 0; --n) {  // \s+(?!\S)
      if (at + n == chars_.size() || space(at + n)) return at + n;
    }
    return at + spaces;  // \s+
  }
  std::vector<Char> chars_;
};

std::vector<std::string> words_of(const WordSplitter& splitter, const std::string& text) {
  std::vector<std::string> words;
  for (std::size_t at = 0, end; at < text.size(); at = end) {
    end = splitter.word_end(text, at);
    words.push_back(text.substr(at, end - at));
  }
  return words;
}

TEST(WordSplitter, ByHand) {
  const UnicodeTables unicode;
  const WordSplitter splitter(unicode);
  using Words = std::vector<std::string>;
  EXPECT_EQ(words_of(splitter, "Hello world"), (Words{"Hello", " world"}));
  EXPECT_EQ(words_of(splitter, "don'T 1234  x\n\n  y"), (Words{"don", "'T", " ", "1", "2", "3", "4", " ", " x", "\n\n", " ", " y"}));
  EXPECT_EQ(words_of(splitter, "it'\u017fok"), (Words{"it", "'\u017f", "ok"}));
  EXPECT_EQ(words_of(splitter, "a\u180eb"), (Words{"a", "\u180eb"}));  // U+180E is white space no more
  EXPECT_EQ(words_of(splitter, "x +=(y);\r\n\n z"), (Words{"x", " +=(", "y", ");\r\n\n", " z"}));
  EXPECT_EQ(words_of(splitter, "   "), (Words{"   "}));
  EXPECT_EQ(words_of(splitter, "\u3000\u3000\u4e2d\u6587"), (Words{"\u3000", "\u3000\u4e2d\u6587"}));
  EXPECT_EQ(words_of(splitter, " \n \u00bd'"), (Words{" \n", " ", "\u00bd", "'"}));
}

TEST(WordSplitter, RandomTextsAgainstThePattern) {
  const UnicodeTables unicode;
  const WordSplitter splitter(unicode);
  const std::vector<std::string> pieces{"a",  "Zb",     "'",      "s",      "S",      "\u017f", "t",        "re",         "VE",
                                        "m",  "lL",     "l",      "d",      "1",      "\u0663", "\u2167",   " ",          "  ",
                                        "\t", "\n",     "\r",     "\u0085", "\u00a0", "\u3000", "\u2028",   ".",          "#",
                                        "_",  "\u0301", "\u4e2d", "\u200b", "\u180e", "\xff",   "\xe4\xb8", "\U0001f600", "e\u0301"};
  std::mt19937 random(1);
  for (int trial = 0; trial < 50000; ++trial) {
    std::string text;
    for (unsigned n = 1 + random() % 10; n > 0; --n) text += pieces[random() % pieces.size()];
    ASSERT_EQ(words_of(splitter, text), NaiveSplitter(unicode, text).words()) << text;
  }
}

}  // namespace
}  // namespace af
