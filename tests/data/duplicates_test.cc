// Duplicates against brute force: identities against a naive normalisation, signatures against true sets of 5-grams.
#include "data/duplicates.h"

#include <cmath>
#include <set>

#include "data/utf8.h"
#include "tests/data/corpus.h"

namespace af {
namespace {

std::string random_words(std::mt19937& random, std::size_t count, unsigned vocabulary = 5000) {
  std::string text;
  for (std::size_t i = 0; i < count; ++i) text += fmt::format("{}w{}", i ? " " : "", random() % vocabulary);
  return text;
}

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words(1);
  for (char c : text) {
    if (c == ' ') {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  return words;
}

double jaccard(const std::string& a, const std::string& b) {
  std::set<std::vector<std::string>> grams[2];
  for (int side : {0, 1}) {
    const std::vector<std::string> words = words_of(side ? b : a);
    for (std::size_t i = 0; i + 5 <= words.size(); ++i)
      grams[side].insert({words.begin() + std::ptrdiff_t(i), words.begin() + std::ptrdiff_t(i) + 5});
  }
  std::size_t both = 0;
  for (const auto& gram : grams[0]) both += grams[1].count(gram);
  return double(both) / double(grams[0].size() + grams[1].size() - both);
}

std::string changed(std::mt19937& random, const std::string& text, double share) {
  std::string out;
  for (const std::string& word : words_of(text)) {
    out += (out.empty() ? "" : " ") + (double(random() % 10000) < share * 10000 ? fmt::format("n{}", random() % 100000) : word);
  }
  return out;
}

std::vector<std::uint16_t> signature(const std::string& text) {
  std::vector<std::uint16_t> values(kSignature);
  minhash(text, values.data());
  return values;
}
double similarity(const std::string& a, const std::string& b) { return estimated_similarity(signature(a).data(), signature(b).data()); }

TEST(Duplicates, IdentityIgnoresWhiteSpaceOnly) {
  std::mt19937 random(1);
  std::string buffer;
  std::map<std::string, Hash128> seen;
  for (int round = 0; round < 5000; ++round) {
    std::string text, normal;
    for (std::size_t i = random() % 12; i > 0; --i) text += " \t\n\rabA\xc3"[random() % 8];
    bool space = false;
    for (char c : text) {
      if (std::string(" \t\n\r").find(c) != std::string::npos) {
        space = !normal.empty();
      } else {
        normal += (space ? " " : "") + std::string(1, c);
        space = false;
      }
    }
    auto [found, added] = seen.emplace(normal, text_identity(text, buffer));
    EXPECT_EQ(found->second, text_identity(text, buffer)) << normal;
  }
  std::set<std::pair<std::uint64_t, std::uint64_t>> different;
  for (const auto& [normal, hash] : seen) different.insert({hash.low, hash.high});
  EXPECT_EQ(different.size(), seen.size());
  EXPECT_GT(seen.size(), 1000u);
}

TEST(Duplicates, ExactIndexIsAMap) {
  std::mt19937_64 random(2);
  ExactIndex index;
  std::map<std::uint64_t, std::int64_t> oracle;
  for (std::int64_t i = 0; i < 200'000; ++i) {
    const std::uint64_t key = random() % 150'000;
    const Hash128 identity = hash128(fmt::format("{}", key));
    auto [found, added] = oracle.emplace(key, i);
    const std::optional<std::int64_t> before = index.find_or_add(identity, i);
    ASSERT_EQ(before, added ? std::nullopt : std::optional(found->second));
  }
}

TEST(Duplicates, SignaturesEstimateJaccard) {
  std::mt19937 random(3);
  double bias = 0, squares = 0;
  int pairs = 0;
  for (double share : {0.0, 0.01, 0.02, 0.04, 0.08, 0.2, 0.5}) {
    for (int i = 0; i < 40; ++i) {
      const std::string a = random_words(random, 200 + random() % 2000), b = changed(random, a, share);
      const double truth = jaccard(a, b), error = similarity(a, b) - truth;
      EXPECT_LE(std::abs(error), 5 * std::sqrt(truth * (1 - truth) / 128) + 1e-12) << truth;
      bias += error, squares += error * error, ++pairs;
    }
  }
  EXPECT_LT(std::abs(bias / pairs), 0.006);
  EXPECT_LT(std::sqrt(squares / pairs), 0.045);
}

TEST(Duplicates, WhatAWordIs) {
  EXPECT_EQ(similarity("The quick brown fox, jumps over it.", "the QUICK brown  fox jumps\nover it"), 1);
  EXPECT_EQ(similarity("l\xc3\xa9 caf\xc3\xa9 \xe2\x80\x9cnoir\xe2\x80\x9d \xe2\x80\x94 un deux trois", "l\xc3\xa9 caf\xc3\xa9 noir un deux trois"),
            1);
  EXPECT_LT(similarity("one two three four five", "one two three four six"), 0.1);
  EXPECT_EQ(similarity("too short", "Too short!"), 1);
  EXPECT_LT(similarity("!!!", "???"), 0.1);
  EXPECT_EQ(similarity("", ""), 1);
  // twenty characters without a space, the last one another: 15 of 17 5-grams in common
  std::string chinese;
  for (int i = 0; i < 20; ++i) chinese += {char(0xe4), char(0xb8 + i / 8), char(0x80 + i)};
  std::string other = chinese;
  other.back() = char(0xbf);
  EXPECT_NEAR(similarity(chinese, other), 15.0 / 17, 0.2);
  EXPECT_LT(similarity(chinese, other), 1);
}

TEST(Duplicates, NearIndexAgainstBruteForce) {
  std::mt19937 random(4);
  for (double threshold : {0.5, 0.8, 0.95}) {
    NearIndex index(threshold);
    EXPECT_LE(index.bands() * index.rows(), kSignature);
    std::vector<std::string> texts;
    std::vector<std::vector<std::uint16_t>> kept;
    std::vector<std::int64_t> kept_number;
    int found = 0, missed = 0;
    for (std::int64_t i = 0; i < 1500; ++i) {
      const bool copy = !texts.empty() && random() % 3 == 0;
      std::string text =
          copy ? changed(random, texts[random() % texts.size()], double(random() % 100) / 1000) : random_words(random, 100 + random() % 400);
      const std::vector<std::uint16_t> mine = signature(text);
      std::set<std::int64_t> similar;
      for (std::size_t k = 0; k < kept.size(); ++k) {
        if (estimated_similarity(mine.data(), kept[k].data()) >= threshold) similar.insert(kept_number[k]);
      }
      const std::optional<std::int64_t> answer = index.find_or_add(mine.data(), i);
      if (answer) {
        ASSERT_TRUE(similar.count(*answer)) << "document " << i << " is not near " << *answer;
        const double truth = jaccard(text, texts[std::size_t(*answer)]);
        EXPECT_GT(truth, threshold - 0.2);
        ++found;
      } else {
        missed += !similar.empty();
        kept.push_back(mine), kept_number.push_back(i);
      }
      texts.push_back(text);
    }
    EXPECT_GT(found, 30);
    EXPECT_LE(missed, found / 50 + 1) << threshold;
  }
}

// Every document with the same boilerplate: each band is full of them, and none is near another.
TEST(Duplicates, BoilerplateStaysCheap) {
  std::mt19937 random(5);
  const std::string boilerplate = random_words(random, 300);
  NearIndex index(0.8);
  int found = 0;
  for (std::int64_t i = 0; i < 5000; ++i)
    found += index.find_or_add(signature(boilerplate + " " + random_words(random, 300, 1u << 30)).data(), i).has_value();
  EXPECT_EQ(found, 0);
}

TEST(Utf8, AgainstTheDefinition) {
  // every code point is valid as encoded; surrogates, overlong forms and what lies above U+10FFFF are not
  auto encode = [](std::uint32_t code, int bytes) {
    std::string text;
    if (bytes == 1) return std::string(1, char(code));
    for (int i = 0; i < bytes - 1; ++i) text.insert(text.begin(), char(0x80 | ((code >> (6 * i)) & 0x3f)));
    text.insert(text.begin(), char((0xf00 >> bytes & 0xff) | (code >> (6 * (bytes - 1)))));
    return text;
  };
  for (std::uint32_t code = 0; code < 0x120000; code += code < 0x11000 ? 1 : 61) {
    const int shortest = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    const bool valid = code <= 0x10ffff && !(code >= 0xd800 && code < 0xe000);
    for (int bytes = shortest; bytes <= 4; ++bytes) {
      const std::string text = encode(code, bytes);
      const Utf8Character found = utf8_character(text, 0);
      ASSERT_EQ(found.bytes, valid && bytes == shortest ? bytes : 0) << std::hex << code << " in " << bytes;
      if (found.bytes) {
        ASSERT_EQ(found.code_point, code);
      }
      if (found.bytes > 1) {
        ASSERT_EQ(utf8_character(text.substr(0, text.size() - 1), 0).bytes, 0);
      }
    }
  }
  EXPECT_EQ(first_invalid_utf8("plain text, longer than eight"), 29u);
  EXPECT_EQ(first_invalid_utf8("plain text \xff"), 11u);
  EXPECT_EQ(first_invalid_utf8("gr\xc3\xbcn \xe2\x82\xac \xf0\x9f\x98\x80"), 14u);
  EXPECT_EQ(first_invalid_utf8("gr\xc3\xbcn \xe2\x82"), 6u);
}

}  // namespace
}  // namespace af
