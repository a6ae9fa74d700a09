#include "data/synthesis/answer_match.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace af {
namespace {

TEST(AnswerMatch, WhatDoesNotCount) {
  for (const auto& [answer, right] : std::vector<std::pair<std::string, std::string>>{{"The Eiffel Tower.", "eiffel tower"},
                                                                                      {"  PARIS\n", "Paris"},
                                                                                      {"\"Paris\"", "Paris"},
                                                                                      {"4,222", "4222.0"},
                                                                                      {"4,222 thousand", "4222 thousand"},
                                                                                      {"1,234,567", "1234567"},
                                                                                      {"O'Hara", "OHara"},
                                                                                      {"\xef\xbc\xa1\xef\xbc\xa2", "ab"},  // full width
                                                                                      {"E\xcc\x81mile", "\xc3\xa9mile"},    // composed or not
                                                                                      {"b, a and c", "a; b; c"},
                                                                                      {"a\nb", "b, a"},
                                                                                      {"-3.50", "-3.5"},
                                                                                      {"\xe2\x80\x9cO\xe2\x80\x99Hara\xe2\x80\x9d", "O'Hara"},
                                                                                      {"1914\xe2\x80\x93" "1918", "1914-1918"},
                                                                                      {"0.0", "-0"}})
    EXPECT_TRUE(answers_match(answer, right)) << answer << " | " << right;
}

TEST(AnswerMatch, WhatCounts) {
  for (const auto& [answer, right] : std::vector<std::pair<std::string, std::string>>{{"Paris, Texas", "Paris"},
                                                                                      {"4222", "422"},
                                                                                      {"4.222", "4,222"},
                                                                                      {"2025-06", "2025"},
                                                                                      {"-3", "3"},
                                                                                      {"1.2.3", "1.2"},
                                                                                      {"apt-get", "aptget"},
                                                                                      {"a, b", "a, b, c"},
                                                                                      {"", ""},
                                                                                      {"the", "a"},
                                                                                      {"not Paris", "Paris"},
                                                                                      {"12345678901234567890", "12345678901234567891"}})
    EXPECT_FALSE(answers_match(answer, right)) << answer << " | " << right;
}

TEST(AnswerMatch, OneOfSeveral) {
  const std::vector<std::string> others{"New York", "NYC"};
  EXPECT_TRUE(answers_match("nyc", "New York City", others));
  EXPECT_FALSE(answers_match("York", "New York City", others));
}

}  // namespace
}  // namespace af
