// The offline teacher's questions, against brute force over the facts as strings: nothing of the index is used here but the
// names and values of what the question is about.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "core/error.h"
#include "data/synthesis/offline_planning.h"
#include "tests/data/offline_toy.h"

namespace af {
namespace {

using Facts = std::map<std::string, std::set<std::pair<std::string, std::string>>>;  // entity: (relation, value)

Facts by_entity(const ToyFacts& facts) {
  Facts found;
  for (const ToyFact& fact : facts) found[fact.entity].insert({fact.relation, fact.value.substr(0, fact.value.find(" <"))});
  return found;
}

struct Checker {
  const Facts& facts;
  const FactIndex& index;

  std::pair<std::string, std::string> pair(int fact) const { return {index.relation(index.relation_of(fact)).name, index.value(fact)}; }
  std::set<std::string> all_with(const std::vector<int>& wanted) const {
    std::set<std::string> found;
    for (const auto& [entity, held] : facts) {
      bool all = true;
      for (const int fact : wanted) all = all && held.contains(pair(fact));
      if (all) found.insert(entity);
    }
    return found;
  }
  std::set<std::string> values(const std::string& entity, int relation) const {
    std::set<std::string> found;
    if (!facts.contains(entity)) return found;
    for (const auto& [name, value] : facts.at(entity)) {
      if (name == index.relation(relation).name) found.insert(value);
    }
    return found;
  }
  std::string one(const std::set<std::string>& values) const {
    return values.size() == 1 ? *values.begin() : "(not one but " + std::to_string(values.size()) + ")";
  }

  // Why the clues do not name the subject; "": they do, uniquely and minimally.
  std::string problem_of(const Subject& subject) const {
    if (subject.clues.empty()) return "";
    if (all_with(subject.clues) != std::set<std::string>{index.name(subject.entity)}) return "not unique";
    for (std::size_t leave = 0; subject.clues.size() > 1 && leave < subject.clues.size(); ++leave) {
      std::vector<int> others = subject.clues;
      others.erase(others.begin() + std::ptrdiff_t(leave));
      if (all_with(others).size() < 2) return "not minimal";
    }
    return "";
  }
  std::string answer_of(const Question& q) const {
    std::vector<std::string> named;
    for (const Subject& subject : q.subjects) named.push_back(subject.clues.empty() ? index.name(subject.entity) : one(all_with(subject.clues)));
    switch (q.operation) {
      case Computation::value:
        return one(values(q.link < 0 ? named[0] : one(values(named[0], q.link)), q.ask));
      case Computation::count:
        return std::to_string(all_with(q.facts).size());
      case Computation::sum:
        return std::to_string(std::stoll(one(values(named[0], q.ask))) + std::stoll(one(values(named[1], q.ask))));
      case Computation::larger:
      case Computation::smaller: {
        const auto a = std::stoll(one(values(named[0], q.ask))), b = std::stoll(one(values(named[1], q.ask)));
        return a == b ? "(equal)" : (a > b) == (q.operation == Computation::larger) ? named[0] : named[1];
      }
      case Computation::common: {
        std::set<std::string> common;
        for (const std::string& value : values(named[0], q.ask)) {
          if (values(named[1], q.ask).contains(value)) common.insert(value);
        }
        return one(common);
      }
      case Computation::referrer: {
        std::set<std::string> found;
        for (const std::string& entity : all_with(q.facts)) {
          if (values(entity, q.link).contains(named[0])) found.insert(entity);
        }
        return one(values(one(found), q.ask));
      }
    }
    return "";
  }
};

struct Fixture : testing::Test {
  ToyFacts strings = toy_facts(1500, 3);
  Facts facts = by_entity(strings);
  FactIndex index = toy_index(strings);
  Checker check{facts, index};
};

using OfflineQuestions = Fixture;

TEST_F(OfflineQuestions, AnswersAreThoseOfBruteForce) {
  const QuestionMaker maker(index, {});
  std::map<std::pair<Style, Computation>, int> seen;
  for (int i = 0; i < 1500; ++i) {
    Dice dice(5, std::uint64_t(i));
    const auto question = maker.make(Style(i % kStyles), maker.random_entity(dice), dice);
    if (!question) continue;
    ++seen[{question->style, question->operation}];
    for (const Subject& subject : question->subjects) EXPECT_EQ(check.problem_of(subject), "") << i;
    EXPECT_EQ(check.answer_of(*question), question->answer) << i;
  }
  for (const Computation operation : {Computation::value, Computation::count, Computation::larger, Computation::smaller, Computation::sum,
                                      Computation::common, Computation::referrer}) {
    int count = 0;
    for (const auto& [key, n] : seen) count += key.second == operation ? n : 0;
    EXPECT_GE(count, 10) << int(operation);
  }
  EXPECT_GE((seen[{Style::multi_hop, Computation::value}]), 10);
  EXPECT_GE((seen[{Style::navigation, Computation::value}]), 10);
}

TEST_F(OfflineQuestions, TheCheckerFindsWhatIsWrong) {
  const QuestionMaker maker(index, {});
  int wrong_clues = 0, wrong_answers = 0, tried = 0;
  for (int i = 0; i < 200; ++i) {
    Dice dice(6, std::uint64_t(i));
    auto question = maker.make(Style::factual, maker.random_entity(dice), dice);
    if (!question || question->subjects[0].clues.size() < 2) continue;
    ++tried;
    Question dropped = *question, swapped = *question;
    dropped.subjects[0].clues.pop_back();
    wrong_clues += !check.problem_of(dropped.subjects[0]).empty();
    swapped.subjects[0].clues = maker.identify((swapped.subjects[0].entity + 1) % index.entities(), {}, dice).value_or(std::vector<int>{0});
    wrong_answers += check.answer_of(swapped) != question->answer;
  }
  EXPECT_GT(tried, 50);
  EXPECT_EQ(wrong_clues, tried);
  EXPECT_GT(wrong_answers, tried * 8 / 10);  // neighbours may share a section
}

TEST_F(OfflineQuestions, SiblingsShareCluesAndAreAllIdentified) {
  const QuestionMaker maker(index, {});
  int found = 0;
  for (int i = 0; i < 200; ++i) {
    Dice dice(7, std::uint64_t(i));
    const std::vector<Subject> group = maker.siblings(
        4, maker.random_entity(dice), [](int entity) { return entity % 3 > 0; }, dice);
    if (group.empty()) continue;
    ++found;
    ASSERT_EQ(group.size(), 4u);
    std::set<int> entities, common(group[0].clues.begin(), group[0].clues.end());
    for (const Subject& subject : group) {
      EXPECT_EQ(check.problem_of(subject), "");
      EXPECT_NE(subject.entity % 3, 0);
      entities.insert(subject.entity);
      std::erase_if(common, [&](int fact) { return std::find(subject.clues.begin(), subject.clues.end(), fact) == subject.clues.end(); });
    }
    EXPECT_EQ(entities.size(), 4u);
    EXPECT_FALSE(common.empty());
  }
  EXPECT_GT(found, 50);
}

TEST_F(OfflineQuestions, NoSplitAsksForTheOthersEntities) {
  const QuestionMaker train(index, {.split = Split::train, .heldout_share = 0.2}), heldout(index, {.split = Split::heldout, .heldout_share = 0.2});
  int held = 0;
  for (int e = 0; e < index.entities(); ++e) {
    EXPECT_NE(train.in_split(e), heldout.in_split(e));
    held += heldout.in_split(e);
  }
  EXPECT_NEAR(held, 0.2 * index.entities(), 4 * std::sqrt(0.16 * index.entities()));
  int made = 0;
  for (int i = 0; i < 1000; ++i) {
    Dice dice(8, std::uint64_t(i));
    const QuestionMaker& maker = i % 2 ? train : heldout;
    const auto question = maker.make(Style(i % kStyles), maker.random_entity(dice), dice);
    if (!question) continue;
    ++made;
    EXPECT_TRUE(maker.in_split(question->target));
    for (const Subject& subject : question->subjects) EXPECT_TRUE(maker.in_split(subject.entity));
  }
  EXPECT_GT(made, 200);
}

TEST_F(OfflineQuestions, WordsHoldWhatDecides) {
  const QuestionMaker maker(index, {});
  for (const auto clues : {Wording::Clues::bare, Wording::Clues::phrases}) {
    const Wording wording(index, clues);
    for (int i = 0; i < 300; ++i) {
      Dice dice(9, std::uint64_t(i));
      const auto question = maker.make(Style(i % kStyles), maker.random_entity(dice), dice);
      if (!question) continue;
      const std::string text = wording.question(*question, dice);
      EXPECT_EQ(text.find_first_of("{}|$"), std::string::npos) << text;
      EXPECT_EQ(text.find("  "), std::string::npos) << text;
      for (const Subject& subject : question->subjects) {
        EXPECT_EQ(text.find(index.name(subject.entity)) != std::string::npos, subject.clues.empty()) << text;  // named, or only hinted at
        for (const int fact : subject.clues) EXPECT_NE(text.find(index.value(fact)), std::string::npos) << text;
      }
      for (const int fact : question->facts) EXPECT_NE(text.find(index.value(fact)), std::string::npos) << text;
    }
  }
}

TEST_F(OfflineQuestions, EntitiesInCluesCanBeDescribed) {
  const QuestionMaker maker(index, {.described_share = 0.7});
  const Wording wording(index, Wording::Clues::phrases);
  int described = 0;
  for (int i = 0; i < 400; ++i) {
    Dice dice(10, std::uint64_t(i));
    const auto question = maker.make(Style::factual, maker.random_entity(dice), dice);
    if (!question) continue;
    const Subject& subject = question->subjects[0];
    ASSERT_EQ(subject.inner.size(), subject.clues.size());
    const std::string text = wording.question(*question, dice);
    for (std::size_t k = 0; k < subject.clues.size(); ++k) {
      if (subject.inner[k].empty()) continue;
      ++described;
      EXPECT_EQ(check.problem_of({index.linked(subject.clues[k]), subject.inner[k], {}}), "");
      EXPECT_EQ(text.find(index.value(subject.clues[k])), std::string::npos) << text;
      for (const int fact : subject.inner[k]) EXPECT_NE(text.find(index.value(fact)), std::string::npos) << text;
    }
  }
  EXPECT_GT(described, 30);
}

TEST(FactIndex, AValueThatIsLeftOutStillCounts) {
  FactIndex index;
  const int a = index.add_entity("a"), b = index.add_entity("b");
  index.add_fact(a, "needs", "x");
  index.add_fact(a, "needs", std::string(200, 'y'));  // too long to be kept: "what a needs" has no one answer
  index.add_fact(b, "needs", "x");
  index.finish();
  EXPECT_EQ(index.only(a, 0), -1);
  EXPECT_EQ(index.value(index.only(b, 0)), "x");
}

TEST(OfflineFacts, ValuesAreCleanedAndRepetitionsCountOnce) {
  FactIndex index;
  const int a = index.add_entity("a"), b = index.add_entity("b");
  for (const char* value : {"Jane Roe <jane@example.org>", "Jane Roe", " Jane Roe "}) index.add_fact(a, "keeper", value);
  index.add_fact(b, "keeper", "Jane Roe <other@example.org>");
  index.add_fact(b, "keeper", std::string(121, 'x'));
  index.add_fact(b, "size", "12");
  index.add_fact(a, "size", "-3");
  index.add_fact(a, "needs", "b");
  index.finish();
  EXPECT_EQ(index.facts(), 4);
  EXPECT_EQ(index.entities_of(0).size(), 2u);
  EXPECT_TRUE(index.relation(1).numeric());
  EXPECT_FALSE(index.relation(0).numeric());
  EXPECT_EQ(index.number(index.only(a, 1)), -3);
  EXPECT_TRUE(index.relation(2).link());
  ASSERT_EQ(index.facts_naming(b).size(), 1u);
  EXPECT_EQ(index.linked(index.facts_naming(b)[0]), b);
  EXPECT_EQ(index.find("c"), -1);
}

TEST(OfflineFacts, AMemoryWithoutSharedFactsIsRefused) {
  FactIndex index;
  index.add_fact(index.add_entity("a"), "homepage", "x");
  index.add_fact(index.add_entity("b"), "homepage", "y");
  index.finish();
  EXPECT_THROW(QuestionMaker(index, {}), UserError);
}

}  // namespace
}  // namespace af
