#include "data/bpe_tokenizer.h"

#include <ctime>
#include <cstdlib>
#include <random>
#include <thread>

#include "data/bpe_builder.h"
#include "data/chat.h"
#include "data/file.h"
#include "tests/data/bpe_toy.h"
#include "tests/data/corpus.h"

namespace af {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::uint32_t>;

Ids encoded(const Tokenizer& tokenizer, std::string_view text, SpecialTokens specials = SpecialTokens::split) {
  Ids ids;
  tokenizer.encoder()->encode(text, specials, ids);
  return ids;
}

// The tokens of one word by the definition: again and again the first merge in the list that applies, at its leftmost place.
Ids naive_merges(const BpeVocabulary& vocabulary, std::string_view word) {
  Ids symbols;
  for (char byte : word) symbols.push_back(toy_byte_id(byte));
  while (true) {
    bool merged = false;
    for (const BpeMerge& merge : vocabulary.merges) {
      for (std::size_t i = 0; i + 1 < symbols.size() && !merged; ++i) {
        if (symbols[i] != merge.left || symbols[i + 1] != merge.right) continue;
        symbols[i] = merge.result;
        symbols.erase(symbols.begin() + std::ptrdiff_t(i) + 1);
        merged = true;
      }
      if (merged) break;
    }
    if (!merged) return symbols;
  }
}

TEST(BpeMerges, ShortAndLongWordsAgainstTheDefinition) {
  const BpeVocabulary vocabulary = toy_vocabulary();
  const BpeTokenizer tokenizer(vocabulary);
  const std::unique_ptr<Encoder> encoder = tokenizer.encoder();
  std::mt19937 random(1);
  for (int trial = 0; trial < 3000; ++trial) {
    std::string word;
    const std::string_view letters = trial % 3 == 0 ? "a" : trial % 3 == 1 ? "ab" : "abhelo";
    for (unsigned n = 1 + random() % (trial % 10 == 0 ? 200 : 60); n > 0; --n)
      word += letters[random() % letters.size()];  // 48 and more take the queue
    Ids ids;
    encoder->encode(word, SpecialTokens::split, ids);
    ASSERT_EQ(ids, naive_merges(vocabulary, word)) << word;
  }
}

TEST(BpeTokenizer, AVocabularyOnPaper) {
  const BpeTokenizer tokenizer(toy_vocabulary());
  auto spelled = [&](std::string_view text, SpecialTokens specials = SpecialTokens::split) {
    std::string tokens;
    for (std::uint32_t id : encoded(tokenizer, text, specials)) tokens += (tokens.empty() ? "" : "|") + std::string(tokenizer.bytes_of(id));
    return tokens;
  };
  EXPECT_EQ(spelled("hello hello"), "hello| hello");
  EXPECT_EQ(spelled("hellohel"), "hello|he|l");
  EXPECT_EQ(spelled("aaaaa"), "aa|aa|a");  // the leftmost first
  EXPECT_EQ(spelled("a a"), "a| |a");
  EXPECT_EQ(spelled("hello<think>hello</think>"), "hello|<think>|hello|</think>");
  EXPECT_EQ(spelled("aa<|im_end|>aa", SpecialTokens::recognise), "aa|<|im_end|>|aa");
  EXPECT_EQ(spelled("aa<|im_end|>").find("<|im_end|>"), std::string::npos);
  EXPECT_EQ(spelled(""), "");
  EXPECT_EQ(tokenizer.vocab_size(), std::int64_t(toy_vocabulary().tokens.size()) + 26);
  EXPECT_EQ(tokenizer.eod_token(), toy_vocabulary().tokens.size());
}

TEST(BpeTokenizer, DecodingGivesTheNormalisedTextAndOrderDoesNotMatter) {
  const BpeTokenizer tokenizer(toy_vocabulary());
  const UnicodeTables unicode;
  const std::unique_ptr<Encoder> warm = tokenizer.encoder();
  std::mt19937 random(2);
  const std::vector<std::string> pieces{
      "hello",   " hello",     "he",           "e\u0301", "\u0301", "\u212b",
      "<think>", "<|im_end|>", "\n",           " \t ",    "\xff",   "\xe2\x82",
      "1",       "'s",         "\u1100\u1161", "\u4e2d",  "<",      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
  for (int trial = 0; trial < 600; ++trial) {
    std::string text;
    for (unsigned n = random() % 9; n > 0; --n) text += pieces[random() % pieces.size()];
    for (SpecialTokens specials : {SpecialTokens::split, SpecialTokens::recognise}) {
      Ids ids;
      warm->encode(text, specials, ids);
      ASSERT_EQ(ids, encoded(tokenizer, text, specials)) << text;  // what was encoded before leaves no trace
      const std::string normalised(warm->normalised(text, specials));
      ASSERT_EQ(tokenizer.decode(ids), normalised) << text;
      ASSERT_EQ(encoded(tokenizer, normalised, specials), ids) << text;
      std::string buffer;
      ASSERT_TRUE(text.find('<') != std::string::npos || normalised == unicode.nfc(text, buffer)) << text;
    }
  }
  EXPECT_EQ(tokenizer.decode(encoded(tokenizer, "<think>\u0338")), "<think>\u0338");  // the mark would join with '>', were it text
}

TEST(BpeTokenizer, ThreadsShareIt) {
  const BpeTokenizer tokenizer(toy_vocabulary());
  std::string text;
  for (int i = 0; i < 20000; ++i) text += "hello " + std::to_string(i % 977) + (i % 7 ? " aab" : "\n");
  const Ids expected = encoded(tokenizer, text);
  std::vector<Ids> found(4);
  std::vector<std::thread> threads;
  for (Ids& ids : found) threads.emplace_back([&] { ids = encoded(tokenizer, text); });
  for (std::thread& thread : threads) thread.join();
  for (const Ids& ids : found) EXPECT_EQ(ids, expected);
}

TEST(BpeTokenizer, IdentityIsThatOfTheIds) {
  const BpeVocabulary toy = toy_vocabulary();
  const std::string identity = BpeTokenizer(toy).sha256();
  EXPECT_EQ(identity, BpeTokenizer(toy).sha256());
  auto differs = [&](auto&& change) {
    BpeVocabulary other = toy;
    change(other);
    return problem_of(other).empty() && BpeTokenizer(other).sha256() != identity;
  };
  EXPECT_TRUE(differs([](BpeVocabulary& v) { std::swap(v.merges[0], v.merges[1]); }));
  EXPECT_TRUE(differs([](BpeVocabulary& v) { v.merges.pop_back(); }));
  EXPECT_TRUE(differs([](BpeVocabulary& v) { v.specials[0].id = 5000; }));
  EXPECT_TRUE(differs([](BpeVocabulary& v) { v.specials[0].control = false; }));
  EXPECT_TRUE(differs([](BpeVocabulary& v) { v.specials.pop_back(); }));
  EXPECT_TRUE(differs([](BpeVocabulary& v) { v.tokens.push_back("unreachable"), v.specials = qwen_special_tokens(1000); }));
  BpeVocabulary reordered = toy;  // the order in which special tokens are listed means nothing
  std::reverse(reordered.specials.begin(), reordered.specials.end());
  EXPECT_EQ(BpeTokenizer(reordered).sha256(), identity);
}

TEST(BpeVocabulary, EveryProblemIsNamed) {
  auto problem = [](auto&& change) {
    BpeVocabulary vocabulary = toy_vocabulary();
    change(vocabulary);
    return problem_of(vocabulary);
  };
  EXPECT_EQ(problem([](BpeVocabulary&) {}), "");
  EXPECT_EQ(problem([](BpeVocabulary& v) { v.tokens[toy_byte_id('A')].clear(); }), "no token stands for the byte 0x41");
  EXPECT_EQ(problem([](BpeVocabulary& v) { v.tokens.push_back("he"); }), "two ids spell 'he'");
  EXPECT_EQ(problem([](BpeVocabulary& v) { v.merges[0].left = 99999; }), "merge 0 needs the token 99999, which does not exist");
  EXPECT_EQ(problem([](BpeVocabulary& v) { v.merges[0].left = toy_byte_id('x'); }), "merge 0 makes 'he' of 'x' and 'e'");
  EXPECT_EQ(problem([](BpeVocabulary& v) { v.merges.push_back(v.merges[0]); }),
            fmt::format("merge {} joins 'h' and 'e', as one before it does", toy_vocabulary().merges.size()));
  EXPECT_EQ(problem([](BpeVocabulary& v) { v.specials[3].text.clear(); }),
            fmt::format("the special token {} is empty", toy_vocabulary().specials[3].id));
  EXPECT_EQ(problem([](BpeVocabulary& v) { v.specials[1].text = "<think>"; }), "the special token '<think>' has two ids");
  EXPECT_EQ(problem([](BpeVocabulary& v) { v.specials[1].id = v.specials[0].id; }),
            fmt::format("the id {} is that of two special tokens", toy_vocabulary().specials[0].id));
  EXPECT_EQ(problem([](BpeVocabulary& v) { v.specials[1].id = toy_byte_id('A'); }),
            fmt::format("the id {} is that of the special token '<|im_start|>' and of the token 'A'", toy_byte_id('A')));
}

// Seconds of this thread's own encoding, whatever else the machine does; the best of three.
double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}
double seconds_for(Encoder& encoder, const std::string& text) {
  double best = 1e9;
  for (int i = 0; i < 3; ++i) {
    Ids ids;
    const double begin = thread_seconds();
    encoder.encode(text, SpecialTokens::split, ids);
    best = std::min(best, thread_seconds() - begin);
  }
  return best;
}

TEST(BpeTokenizer, NoInputIsQuadratic) {
  const BpeTokenizer tokenizer(toy_vocabulary());
  const std::unique_ptr<Encoder> encoder = tokenizer.encoder();
  const std::vector<std::pair<const char*, std::string>> units{{"one letter", "a"},
                                                               {"two letters", "ab"},
                                                               {"spaces", " "},
                                                               {"spaces and line ends", " \n"},
                                                               {"line ends", "\r"},
                                                               {"symbols", "#"},
                                                               {"apostrophes", "'"},
                                                               {"Chinese", "\u4e2d\u6587"},
                                                               {"marks out of order", "\u0301\u0323"},
                                                               {"Hangul parts", "\u1100\u1161\u11a8"},
                                                               {"no UTF-8", "\xff\xe2\x82"},
                                                               {"beginnings of special tokens", "<|im_"},
                                                               {"special tokens", "<think>"}};
  for (const auto& [what, unit] : units) {
    auto repeated = [&, &unit = unit](std::size_t bytes) {
      std::string text;
      while (text.size() < bytes) text += unit;
      return text;
    };
    const double small = seconds_for(*encoder, repeated(60'000)), large = seconds_for(*encoder, repeated(960'000));
    EXPECT_LT(large, 16 * small * 4 + 0.02) << what << ": " << small << " s and " << large << " s for 16 times the length";  // quadratic: 256 times
  }
}

// The vectors of the published tokenizer, on its real ranks.
TEST(QwenVocabulary, PublishedVectors) {
  const char* folder = std::getenv("AF_TEST_DATA");
  const fs::path path = fs::path(folder ? folder : AF_SOURCE_DIR "/../shared/data") / "qwen.tiktoken";
  if (!fs::exists(path)) GTEST_SKIP() << "no qwen.tiktoken in AF_TEST_DATA or ../shared/data";
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(path.string());
  EXPECT_EQ(tokenizer->vocab_size(), 151669);
  EXPECT_EQ(tokenizer->eod_token(), 151643u);
  EXPECT_EQ(tokenizer->special_token("</think>"), 151668u);
  const std::pair<const char*, Ids> vectors[] = {
      {"Hello world", {9707, 1879}},
      {" Hello world", {21927, 1879}},
      {"e\u0301", {963}},
      {"\u00e9", {963}},
      {"don'T 1234  x\n\n  y", {15007, 17323, 220, 16, 17, 18, 19, 220, 856, 271, 220, 379}},
      {"it'\u017f ok", {275, 6, 144815, 5394}},
      {"a\u180eb", {64, 123970, 236, 65}},
      {"<tool_call>{}</tool_call><|im_end|>", {151657, 6257, 151658, 151645}},
      {"\u212b \u1e9b\u0323", {144044, 220, 149616, 136, 96}},
  };
  for (const auto& [text, ids] : vectors) EXPECT_EQ(encoded(*tokenizer, text, SpecialTokens::recognise), ids) << text;
  EXPECT_EQ(encoded(*tokenizer, "<tool_call>{}</tool_call><|im_end|>").size(), 9u);  // <|im_end|> as text

  // Roles of a chat whose text is not normalised are counted on what the tokens spell.
  Document document;
  const std::vector<Message> messages{{"assistant", "<think>e\u0301e\u0301e\u0301e\u0301</think><answer>\u212b</answer>"}};
  render_chat(*tokenizer->encoder(), messages, SpecialTokens::split, document);
  ASSERT_EQ(document.roles.size(), 2u);
  auto text_of = [&](const RoleRun& run) {
    return tokenizer->decode(std::span(document.tokens).subspan(std::size_t(run.begin), std::size_t(run.end - run.begin)));
  };
  EXPECT_EQ(text_of(document.roles[0]), "<think>\u00e9\u00e9\u00e9\u00e9</think>");
  EXPECT_EQ(text_of(document.roles[1]), "<answer>\u00c5</answer><|im_end|>");
}

}  // namespace
}  // namespace af
