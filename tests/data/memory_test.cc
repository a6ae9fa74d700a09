// The memory against naive models: what is kept and in which order, duplicates by brute force, search by the formula.
#include "data/synthesis/memory.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>

#include "core/error.h"
#include "data/synthesis/database.h"
#include "data/synthesis/memory_search.h"
#include "data/synthesis/recent_texts.h"

namespace af {
namespace {

class MemoryTest : public testing::Test {
 protected:
  MemoryTest() {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~MemoryTest() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name = "m.db") const { return folder_ + "/" + name; }
  std::string folder_ = testing::TempDir() + "/af_memory_" + testing::UnitTest::GetInstance()->current_test_info()->name();
};

Statement fact(const std::string& entity, const std::string& relation, const std::string& value) {
  return {entity, entity + " " + relation + " " + value + ".", "", "", "catalogue", relation, value};
}
Statement prose(const std::string& entity, const std::string& text) { return {entity, text, "", "", "prose", "", ""}; }

std::vector<Statement> random_statements(std::mt19937& random, int count) {
  std::vector<Statement> statements;
  for (int i = 0; i < count; ++i) {
    const std::string entity = fmt::format("entity {}", random() % 40);
    Statement s = random() % 3 ? fact(entity, fmt::format("r{}", random() % 5), fmt::format("v{}", random() % 30))
                               : prose(entity, fmt::format("Word{}  number\t{} stands here.", random() % 10, random() % 10));
    s.time = random() % 2 ? "2025" : "", s.source = fmt::format("https://example.org/{}", random() % 7);
    statements.push_back(s);
  }
  return statements;
}

std::string squeezed(const std::string& text) {
  std::string out;
  for (char c : text) {
    const bool space = c == ' ' || c == '\t' || c == '\n';
    if (!space || (!out.empty() && out.back() != ' ')) out += space ? ' ' : c;
  }
  return out;
}

TEST_F(MemoryTest, KeepsTheFirstOfEachInOrderOverBatchesAndReopening) {
  std::mt19937 random(3);
  std::vector<std::string> names;
  std::map<std::string, std::vector<Statement>> expected;
  std::set<std::pair<std::string, std::string>> seen;
  std::int64_t total = 0, facts = 0;
  Memory::open(path(), Memory::Mode::create);
  for (int batch = 0; batch < 12; ++batch) {
    Memory memory = Memory::open(path(), Memory::Mode::append);
    const std::vector<Statement> statements = random_statements(random, 150);
    std::int64_t added = 0, exact = 0;
    for (const Statement& s : statements) {
      if (std::find(names.begin(), names.end(), s.entity) == names.end()) names.push_back(s.entity);
      if (!seen.insert({s.entity, squeezed(s.text)}).second) {
        ++exact;
        continue;
      }
      expected[s.entity].push_back(s);
      ++added, ++total, facts += !s.relation.empty();
    }
    const Memory::Added got = memory.add(statements);
    EXPECT_EQ(got.added, added);
    EXPECT_EQ(got.exact_duplicates, exact);
    EXPECT_EQ(got.near_duplicates, 0);
  }
  Memory memory = Memory::open(path(), Memory::Mode::read);
  EXPECT_EQ(memory.counts().entities, std::int64_t(names.size()));
  EXPECT_EQ(memory.counts().statements, total);
  EXPECT_EQ(memory.counts().facts, facts);
  std::vector<std::tuple<std::int64_t, std::string, std::string>> wanted, found;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::int64_t id = std::int64_t(i) + 1;
    EXPECT_EQ(memory.entity_name(id), names[i]);
    EXPECT_EQ(memory.find_entity(names[i]), id);
    EXPECT_EQ(memory.statements_of(id), expected[names[i]]);
    ASSERT_EQ(memory.statements_of(id, 2).size(), std::min<std::size_t>(2, expected[names[i]].size()));
    for (const Statement& s : expected[names[i]]) {
      if (!s.relation.empty()) wanted.emplace_back(id, s.relation, s.value);
    }
  }
  memory.for_each_fact([&](std::int64_t e, std::string_view r, std::string_view v) { found.emplace_back(e, r, v); });
  EXPECT_EQ(found, wanted);
  EXPECT_EQ(memory.find_entity("entity"), std::nullopt);
}

TEST_F(MemoryTest, NearDuplicatesWithinAnEntityOnly) {
  const std::string text =
      "The old lighthouse at the northern end of the island was built of grey granite by the brothers Stevenson, and its lamp, which is seen from "
      "thirty miles away, has been lit every night since the keeper moved into the white house below the tower with his family and two dogs.";
  const auto with = [&](const std::string& from, const std::string& to) { return std::string(text).replace(text.find(from), from.size(), to); };
  Memory memory = Memory::open(path(), Memory::Mode::create);
  EXPECT_EQ(memory.add(std::vector{prose("a", text)}).added, 1);
  struct Case {
    Statement statement;
    std::int64_t added, exact, near;
  };
  Statement as_fact = prose("a", with("grey", "old grey"));
  as_fact.relation = "is", as_fact.value = "built";
  const Case cases[] = {
      {prose("a", text), 0, 1, 0},
      {prose("a", "  " + with("the island", "the\n island")), 0, 1, 0},  // white space alone
      {prose("a", with("two dogs", "two cats")), 0, 0, 1},               // one word of 45
      {prose("b", with("two dogs", "two cats")), 1, 0, 0},               // of another entity
      {prose("a", with("two dogs", "2 dogs")), 1, 0, 0},                 // another number is news
      {prose("a", with("two dogs", "2 cats")), 0, 0, 1},                 // the number is known now
      {prose("a", with("two dogs", "3 dogs")), 1, 0, 0},
      {as_fact, 1, 0, 0},  // facts are never near
      {prose("a", "The lighthouse is no longer lit, and nobody lives there any more."), 1, 0, 0},
  };
  for (const Case& c : cases) {
    for (bool reopened : {false, true}) {  // what was added before is known from the file, too
      if (reopened && c.added) continue;
      const Memory::Added got =
          reopened ? Memory::open(path(), Memory::Mode::append).add(std::vector{c.statement}) : memory.add(std::vector{c.statement});
      EXPECT_EQ(got.added, c.added) << c.statement.text;
      EXPECT_EQ(got.exact_duplicates, c.exact) << c.statement.text;
      EXPECT_EQ(got.near_duplicates, c.near) << c.statement.text;
    }
  }
}

TEST_F(MemoryTest, NearDuplicatesAmongTheLatestTexts) {
  RecentTexts recent;
  recent.start(1);
  const auto text = [](int i) { return fmt::format("w{0}a w{0}b w{0}c w{0}d w{0}e w{0}f w{0}g", i); };
  for (int i = 0; i < int(RecentTexts::kMostTexts); ++i) EXPECT_TRUE(recent.add_if_new(1, text(i)));
  EXPECT_FALSE(recent.add_if_new(1, text(0)));
  EXPECT_TRUE(recent.add_if_new(1, text(-1)));  // in the place of the oldest
  EXPECT_TRUE(recent.add_if_new(1, text(0)));
  EXPECT_FALSE(recent.add_if_new(1, text(2)));
  recent.start(2);
  EXPECT_TRUE(recent.add_if_new(2, text(2)));
  EXPECT_NE(numbers_of("1 a 23"), numbers_of("12 a 3"));
  EXPECT_EQ(numbers_of("1 a 23"), numbers_of("in 1 b 23."));
}

TEST_F(MemoryTest, AnAddThatFailsLeavesNothing) {
  Memory memory = Memory::open(path(), Memory::Mode::create);
  memory.add(std::vector{fact("a", "is", "b")});
  EXPECT_THROW(memory.add(std::vector{fact("new", "is", "c"), prose("a", "A free text that is undone again."), prose("a", "")}), InternalError);
  EXPECT_EQ(memory.counts().statements, 1);
  EXPECT_EQ(memory.find_entity("new"), std::nullopt);
  const Memory::Added added = memory.add(std::vector{fact("new", "is", "c"), prose("a", "A free text that is undone again.")});
  EXPECT_EQ(added.added, 2);
  EXPECT_EQ(memory.entity_name(2), "new");
  EXPECT_EQ(memory.search("undone", 5).size(), 1u);
}

TEST_F(MemoryTest, ProgressGoesWithTheStatements) {
  Memory memory = Memory::open(path(), Memory::Mode::create);
  MemorySource source{"documents", "a.jsonl", "00", 1, false, 10, 3, 1, 0, 0, 0, "MIT"};
  memory.add(std::vector{fact("a", "is", "b"), fact("a", "is", "b")}, &source);
  source.blocks = 2, source.finished = true, source.sha256 = "01";
  memory.add(std::vector{fact("a", "is", "c")}, &source);
  MemorySource again{"documents", "a.jsonl", "02", 1, false, 10, 3, 1, 0, 0, 0, ""};  // a finished one is not touched again
  EXPECT_THROW(memory.add(std::vector{prose("", "x")}, &again), InternalError);
  ASSERT_EQ(memory.sources().size(), 1u);
  memory.add({}, &again);
  const std::vector<MemorySource> sources = Memory::open(path(), Memory::Mode::read).sources();
  ASSERT_EQ(sources.size(), 2u);
  EXPECT_EQ(sources[0].added, 2);
  EXPECT_EQ(sources[0].exact_duplicates, 1);
  EXPECT_EQ(sources[0].sha256, "01");
  EXPECT_TRUE(sources[0].finished);
  EXPECT_EQ(sources[0].licence, "MIT");
  EXPECT_FALSE(sources[1].finished);
}

TEST_F(MemoryTest, SearchRanksByTheFormula) {
  std::mt19937 random(11);
  Memory memory = Memory::open(path(), Memory::Mode::create);
  std::map<std::string, std::string> documents;  // by entity; the name is "n<word> e<number>"
  std::vector<std::string> names;
  for (int i = 0; i < 60; ++i) names.push_back(fmt::format("w{} e{}", random() % 12, i));
  for (int batch = 0; batch < 3; ++batch) {  // an entity's document grows
    std::vector<Statement> statements;
    for (const std::string& name : names) {
      for (unsigned s = random() % 4; s > 0; --s) {
        std::string text = fmt::format("s{}x{}", batch, s);
        for (unsigned w = 1 + random() % 9; w > 0; --w) text += fmt::format(" w{}", unsigned(std::sqrt(double(random() % 900))));
        statements.push_back(fact(name, "is", text));
        documents[name] += statements.back().text + "\n";
      }
    }
    memory.add(statements);
  }
  double mean = 0;
  for (const auto& [name, text] : documents) mean += double(text.size()) / double(documents.size());
  const auto holds = [](const std::string& text, const std::string& word) { return (" " + text + " ").find(" " + word + " ") != std::string::npos; };
  const auto spaced = [](std::string text) {
    for (char& c : text) c = c == '.' || c == '\n' ? ' ' : c;
    return text;
  };
  for (int round = 0; round < 40; ++round) {
    std::vector<std::string> words;
    for (unsigned n = 1 + random() % 4; n > 0; --n) {
      std::string word = fmt::format("w{}", random() % 32);
      if (std::find(words.begin(), words.end(), word) == words.end()) words.push_back(word);
    }
    std::vector<std::pair<double, std::int64_t>> expected;
    for (const auto& [name, text] : documents) {
      double score = 0;
      for (const std::string& word : words) {
        const auto n =
            double(std::count_if(documents.begin(), documents.end(), [&](const auto& d) { return holds(spaced(d.first + " " + d.second), word); }));
        if (!holds(spaced(name + " " + text), word)) continue;
        const double w = holds(name, word) ? 3 : 1, N = double(documents.size());
        score += std::log(1 + (N - n + 0.5) / (n + 0.5)) * 2.2 * w / (w + 1.2 * (0.5 + 0.5 * double(text.size()) / mean));
      }
      if (score > 0) expected.push_back({-score, *memory.find_entity(name)});
    }
    std::sort(expected.begin(), expected.end());
    std::string query;
    for (const std::string& word : words) query += word + " ";
    const std::vector<Memory::Found> found = memory.search(query, 8);
    ASSERT_EQ(found.size(), std::min<std::size_t>(8, expected.size())) << query;
    for (std::size_t i = 0; i < found.size(); ++i) EXPECT_EQ(found[i].entity, expected[i].second) << query << " place " << i;
  }
}

TEST_F(MemoryTest, SearchTakesAnyText) {
  Memory memory = Memory::open(path(), Memory::Mode::create);
  memory.add(std::vector{prose("libstdc++6", "The GNU C++ library is shared by many programs."),
                         prose("Caf\u00e9", "The Caf\u00e9 stands in Z\u00fcrich near the lake."),
                         prose("\u4e2d\u56fd", "\u4e2d\u56fd\u662f\u4e9a\u6d32\u7684\u4e00\u4e2a\u5927\u56fd\u3002"),
                         prose("f", "cats ran over the table, dogs did not.")});
  const auto best = [&](const std::string& query) {
    const std::vector<Memory::Found> found = memory.search(query, 3);
    return found.empty() ? "" : found[0].title;
  };
  EXPECT_EQ(best("libstdc++6"), "libstdc++6");
  EXPECT_EQ(best("cafe zurich"), "Caf\u00e9");
  EXPECT_EQ(best("\u5927\u56fd"), "\u4e2d\u56fd");
  EXPECT_EQ(best("cat table"), "f");
  EXPECT_EQ(best("\"dogs did\""), "f");
  EXPECT_EQ(best("\"did dogs\""), "");
  std::mt19937 random(5);
  for (int round = 0; round < 3000; ++round) {
    std::string query;
    for (unsigned n = random() % 12; n > 0; --n)
      query +=
          "\"'*^:(){}+-~ANDORNOTNEAR \t\n\\%\xff\xc3\xa9\x80"
          "a1,;"[random() % 40];
    EXPECT_NO_THROW(memory.search(query, 3)) << query;
  }
  EXPECT_NO_THROW(memory.search(std::string(100'000, 'x') + std::string(50'000, '"'), 3));
  EXPECT_TRUE(memory.search("table", 0).empty());
}

TEST_F(MemoryTest, SnippetsSayWhatWasAskedFor) {
  const std::vector<std::string> statements{"It is red.", "It stands in Paris.", "It weighs 12 tonnes and stands in Paris.", std::string(400, 'x')};
  EXPECT_EQ(SearchWords("Paris tonnes red").snippet(statements), "It weighs 12 tonnes and stands in Paris. It is red.");
  EXPECT_EQ(SearchWords("nothing").snippet(statements), "It is red.");
  EXPECT_EQ(SearchWords("x").snippet(std::vector{std::string(299, 'a') + "\u00e9\u00e9"}), std::string(299, 'a') + "...");
  EXPECT_EQ(SearchWords("ton").snippet(statements), statements[2]) << "a word's beginning";
  EXPECT_EQ(SearchWords("onnes").snippet(statements), "It is red.") << "not its middle";
}

TEST_F(MemoryTest, FilesThatAreNone) {
  const auto message = [&](const std::string& name) {
    try {
      Memory::open(path(name), Memory::Mode::read);
    } catch (const UserError& error) {
      return std::string(error.what());
    }
    return std::string("opened");
  };
  std::ofstream(path("text")) << std::string(10'000, 'a');
  { Database(path("other"), Database::Access::create).execute("CREATE TABLE t(a)"); }
  std::ofstream(path("empty"));
  EXPECT_NE(message("text").find("file is not a database"), std::string::npos) << message("text");
  EXPECT_NE(message("other").find("is no memory"), std::string::npos) << message("other");
  EXPECT_NE(message("empty").find("is no memory"), std::string::npos) << message("empty");
  EXPECT_NE(message("missing").find("missing"), std::string::npos) << message("missing");
  { Memory::open(path(), Memory::Mode::create); }
  EXPECT_THROW(Memory::open(path(), Memory::Mode::create), UserError);
  Memory read = Memory::open(path(), Memory::Mode::read);
  EXPECT_THROW(read.add(std::vector{fact("a", "is", "b")}), UserError);
  std::filesystem::resize_file(path(), std::filesystem::file_size(path()) / 2);
  EXPECT_THROW(Memory::open(path(), Memory::Mode::append).add(std::vector{fact("a", "is", "b")}), UserError);
}

}  // namespace
}  // namespace af
