#include "data/bpe_trainer.h"

#include <random>

#include "data/bpe_builder.h"
#include "tests/data/corpus.h"

namespace af {
namespace {

using Words = std::map<std::string, std::int64_t>;
using Merges = std::vector<std::pair<std::string, std::string>>;

Merges merges_of(const BpeVocabulary& vocabulary) {
  Merges merges;
  for (const BpeMerge& merge : vocabulary.merges) merges.emplace_back(vocabulary.tokens[merge.left], vocabulary.tokens[merge.right]);
  return merges;
}

// Counts all pairs anew for every merge.
Merges naive_training(const Words& words, std::size_t most_tokens) {
  const ByteAlphabet alphabet;
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, char(byte));
  std::sort(tokens.begin(), tokens.end(), [&](const auto& a, const auto& b) { return alphabet.character_of(a[0]) < alphabet.character_of(b[0]); });
  auto id_of = [&](const std::string& token) { return std::find(tokens.begin(), tokens.end(), token) - tokens.begin(); };
  std::vector<std::pair<std::vector<std::string>, std::int64_t>> split;
  for (const auto& [word, count] : words) {
    split.emplace_back(std::vector<std::string>(), count);
    for (char byte : word) split.back().first.emplace_back(1, byte);
  }
  Merges merges;
  while (tokens.size() < most_tokens) {
    std::map<std::pair<std::ptrdiff_t, std::ptrdiff_t>, std::int64_t> counts;
    for (const auto& [symbols, count] : split) {
      for (std::size_t i = 0; i + 1 < symbols.size(); ++i) counts[{id_of(symbols[i]), id_of(symbols[i + 1])}] += count;
    }
    auto best = counts.end();
    for (auto pair = counts.begin(); pair != counts.end(); ++pair) {
      if (best == counts.end() || pair->second > best->second) best = pair;
    }
    if (best == counts.end() || best->second < 2) break;
    const std::string left = tokens[std::size_t(best->first.first)], right = tokens[std::size_t(best->first.second)];
    merges.emplace_back(left, right);
    if (std::find(tokens.begin(), tokens.end(), left + right) == tokens.end()) tokens.push_back(left + right);
    for (auto& [symbols, count] : split) {
      for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
        if (symbols[i] != left || symbols[i + 1] != right) continue;
        symbols[i] += symbols[i + 1];
        symbols.erase(symbols.begin() + std::ptrdiff_t(i) + 1);
      }
    }
  }
  return merges;
}

TEST(BpeTrainer, AgainstCountingAnew) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 30; ++trial) {
    BpeTrainer trainer;
    Words words;
    for (unsigned n = 1 + random() % 40; n > 0; --n) {
      std::string word;  // one word of letters, of few kinds: many ties and overlaps
      for (unsigned m = 1 + random() % 12; m > 0; --m) word += char('a' + random() % (trial % 2 ? 2 : 4));
      trainer.add(word);
      ++words[word];
    }
    const std::size_t ids = 256 + random() % 60;
    const BpeVocabulary vocabulary = trainer.train(std::int64_t(ids) + 26);
    ASSERT_EQ(problem_of(vocabulary), "");
    ASSERT_EQ(merges_of(vocabulary), naive_training(words, ids)) << "trial " << trial;
  }
}

TEST(BpeTrainer, WordsSpecialTokensAndTheEnd) {
  BpeTrainer trainer;
  trainer.add("low low lower e\u0301 \u00e9 <think>low</think>");
  const BpeVocabulary vocabulary = trainer.train(1000);
  // low 4 times; \u00e9, by NFC in both forms, and " low" twice each, but the byte 0xc3 has a lower id than the space
  Merges expected{{"l", "o"}, {"lo", "w"}, {"\xc3", "\xa9"}, {" ", "low"}, {" ", "\u00e9"}};
  EXPECT_EQ(merges_of(vocabulary), expected);
  EXPECT_EQ(vocabulary.tokens.size(), 256 + expected.size());
  EXPECT_EQ(vocabulary.specials, qwen_special_tokens(std::uint32_t(vocabulary.tokens.size())));
  EXPECT_EQ(vocabulary.tokens[0], "!");    // as Hugging Face numbers the bytes
  EXPECT_EQ(vocabulary.tokens[220], " ");  // and Qwen
  EXPECT_EQ(trainer.train(256 + 26 + 2).merges.size(), 2u);
  EXPECT_EQ(trainer.train(256 + 26).merges.size(), 0u);

  BpeTrainer other;  // the same words in other texts
  for (const char* text : {"\u00e9", "<think>", " \u00e9", "low", " lower", " low", "low"}) other.add(text);
  EXPECT_EQ(merges_of(other.train(1000)), (Merges{{"l", "o"}, {"lo", "w"}, {"\xc3", "\xa9"}, {" ", "low"}}));  // " \u00e9" only once
}

}  // namespace
}  // namespace af
