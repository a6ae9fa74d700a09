#include "data/contamination.h"

#include <map>
#include <random>
#include <set>

#include "tests/data/corpus.h"

namespace af {
namespace {

using Hit = BenchmarkIndex::Hit;
using Words = std::vector<std::string>;

std::string joined(const Words& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

std::set<std::string> grams(const Words& words, std::size_t n) {
  std::set<std::string> all;
  for (std::size_t i = 0; i + n <= words.size(); ++i) all.insert(joined(Words(words.begin() + std::ptrdiff_t(i), words.begin() + std::ptrdiff_t(i + n))));
  return all;
}

enum class Mutant { none, shorter, longer, last_left_out, first_left_out, counted_twice, short_ones_too };

// By sets of strings; or a mutant of it.
std::vector<Hit> naive(const std::vector<Words>& questions, const Words& text, std::size_t ngram, Mutant mutant = Mutant::none) {
  std::vector<Hit> hits;
  ngram += std::size_t(mutant == Mutant::longer) - std::size_t(mutant == Mutant::shorter);
  Words words(text.begin() + (mutant == Mutant::first_left_out && !text.empty()), text.end() - (mutant == Mutant::last_left_out && !text.empty()));
  for (std::size_t q = 0; q < questions.size(); ++q) {
    const std::size_t n = std::min(ngram, questions[q].size());
    if (n < ngram && n < std::size_t(BenchmarkIndex::kLeastWords) && mutant != Mutant::short_ones_too) continue;
    const std::set<std::string> there = grams(words, n);
    int shared = 0;
    for (const std::string& gram : grams(questions[q], n)) shared += int(there.count(gram));
    if (shared > 0) hits.push_back({int(q), shared + (mutant == Mutant::counted_twice)});
  }
  return hits;
}

TEST(Contamination, AgainstSetsOfStrings) {
  std::mt19937 random(5);
  std::map<Mutant, int> noticed;
  const std::vector<Mutant> mutants{Mutant::shorter, Mutant::longer, Mutant::last_left_out, Mutant::first_left_out, Mutant::counted_twice, Mutant::short_ones_too};
  for (int ngram : {3, 9, 13}) {
    int contaminated = 0;
    for (int trial = 0; trial < 60; ++trial) {
      const auto words = [&](std::size_t count) {  // few different ones, so that parts agree by chance as well
        Words made;
        for (std::size_t i = 0; i < count; ++i) made.push_back("w" + std::to_string(random() % (ngram == 3 ? 12 : 400)));
        return made;
      };
      std::vector<Words> questions;
      BenchmarkIndex index(ngram);
      for (int q = 0; q < 20; ++q) {
        questions.push_back(words(1 + random() % 40));
        index.add(joined(questions.back()));
      }
      index.finish();
      BenchmarkIndex::Search search(index);
      for (int d = 0; d < 10; ++d) {
        Words text = words(random() % 200);
        for (std::size_t n = random() % 3; n > 0; --n) {  // parts of questions, planted
          const Words& question = questions[random() % questions.size()];
          const std::size_t begin = random() % question.size(), count = 1 + random() % (question.size() - begin);
          const std::ptrdiff_t at = random() % 3 == 0 ? std::ptrdiff_t(text.size()) : std::ptrdiff_t(random() % (text.size() + 1));  // often the end
          text.insert(text.begin() + at, question.begin() + std::ptrdiff_t(begin), question.begin() + std::ptrdiff_t(begin + count));
        }
        const std::vector<Hit> expected = naive(questions, text, std::size_t(ngram));
        ASSERT_EQ(search.find(joined(text)), expected);
        contaminated += !expected.empty();
        for (const Mutant mutant : mutants)
          if (d == 0) noticed[mutant] += naive(questions, text, std::size_t(ngram), mutant) != expected;
      }
    }
    EXPECT_GT(contaminated, 20);
    EXPECT_LT(contaminated, 590);
  }
  for (const Mutant mutant : mutants) EXPECT_GT(noticed[mutant], 5) << int(mutant);
}

TEST(Contamination, CaseAndPunctuationDoNotMatterOneWordDoes) {
  BenchmarkIndex index(13);
  const std::string question = "On 16 August 1986, the opening match of a team that won ten titles took place in Berlin.";  // 18 words
  EXPECT_EQ(index.add(question), 6);
  EXPECT_EQ(index.add("Too short to be looked for."), 0);
  EXPECT_EQ(index.add("Eight words of a question are just enough."), 1);
  index.finish();
  EXPECT_EQ(index.too_short(), 1);
  BenchmarkIndex::Search search(index);
  EXPECT_EQ(search.find("x (on 16 AUGUST 1986) the \"opening\" match\n of a Team -- that won ten titles; took place in berlin y"), (std::vector<Hit>{{0, 6}}));
  EXPECT_EQ(search.find("1986: the opening match of a team that won ten titles took place, on 16 August"), (std::vector<Hit>{{0, 1}}));
  EXPECT_TRUE(search.find("the opening match of a team that won ten titles took place elsewhere").empty()) << "12 words in common are not enough";
  EXPECT_TRUE(search.find("On 16 August 1986, the opening match of the team that won ten titles took place in Berlin.").empty()) << "one word in the middle differs";
  EXPECT_EQ(search.find("... eight words of a question are just enough"), (std::vector<Hit>{{2, 1}}));
  EXPECT_TRUE(search.find("eight words of a question are just").empty());
  EXPECT_TRUE(search.find("").empty());
}

TEST(Contamination, ScriptsWithoutBlanks) {
  BenchmarkIndex index(13);
  index.add("一九八六年八月十六日在柏林举行的比赛有多少观众");
  index.finish();
  BenchmarkIndex::Search search(index);
  EXPECT_EQ(search.find("据说，一九八六年八月十六日在柏林举行了比赛").size(), 1u);
  EXPECT_TRUE(search.find("一九八六年八月十七日在柏林举行的会议").empty());
}

}  // namespace
}  // namespace af
