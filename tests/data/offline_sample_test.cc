// The offline teacher's samples: calls that the tools take, responses to the byte, options, outcomes, the same for any number of threads.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "core/error.h"
#include "data/duplicates.h"
#include "data/synthesis/offline_batch.h"
#include "data/synthesis/offline_planning.h"
#include "tests/data/offline_toy.h"

namespace af {
namespace {

struct Fixture : testing::Test {
  FactIndex index = toy_index(toy_facts(1500, 3));
  QuestionMaker maker{index, {}};
  Wording wording{index, Wording::Clues::phrases};
  WorldAccess world = toy_world(index);
  OfflinePlanner planner{maker, wording, world.page_url};
  ToolSet tools = ToolSet::built_in();

  MakeSample planning() const {
    return [this](std::int64_t number) -> std::optional<Sample> {
      Dice dice(1, std::uint64_t(number));
      const auto question = maker.make(Style(number % kStyles), maker.random_entity(dice), dice);
      if (!question) return std::nullopt;
      return planner.planning(*question, dice);
    };
  }
};

using OfflineSamples = Fixture;

TEST_F(OfflineSamples, PlanningIsQuestionAnalysisAndOneValidCall) {
  int made = 0;
  for (int i = 0; i < 600; ++i) {
    const auto sample = planning()(i);
    if (!sample) continue;
    ++made;
    ASSERT_EQ(sample->segments.size(), 3u);
    EXPECT_EQ(sample->segments[0].role, Role::user);
    EXPECT_EQ(sample->segments[1].role, Role::thought);
    EXPECT_EQ(sample->segments[2].role, Role::action);
    const std::string step = sample->segments[1].text + sample->segments[2].text;
    EXPECT_EQ(tools.problem_of(step), std::nullopt) << step;
    EXPECT_EQ(step.find("$"), std::string::npos) << step;
    EXPECT_EQ(step.find("  "), std::string::npos) << step;
    EXPECT_FALSE(sample->answer.empty());
  }
  EXPECT_GT(made, 300);
}

TEST_F(OfflineSamples, ReasoningEndsInTheRightAnswer) {
  int made = 0, mended = 0;
  for (int i = 0; i < 600; ++i) {
    Dice dice(2, std::uint64_t(i));
    const auto question = maker.make(i % 2 ? Style::factual : Style::multi_hop, maker.random_entity(dice), dice);
    if (!question) continue;
    const auto sample = planner.reasoning(*question, dice);
    if (!sample) continue;
    ++made;
    ASSERT_EQ(sample->segments.size(), 3u);
    const std::string& thought = sample->segments[1].text;
    EXPECT_EQ(sample->segments[2].text, "<answer>" + question->answer + "</answer>\n");
    EXPECT_EQ(tools.problem_of(thought + sample->segments[2].text), std::nullopt);
    EXPECT_NE(thought.find(index.name(question->subjects[0].entity)), std::string::npos);
    EXPECT_NE(thought.rfind(question->answer), std::string::npos);
    EXPECT_EQ(thought.find("  "), std::string::npos) << thought;
    mended += thought.find("not") != std::string::npos || thought.find("nstead") != std::string::npos || thought.find("falls") != std::string::npos;
  }
  EXPECT_GT(made, 40);
  EXPECT_GT(mended, made / 2);
}

TEST_F(OfflineSamples, ABatchIsTheSameForAnyNumberOfThreadsAndHasNoNearDuplicates) {
  std::vector<std::string> texts[2];
  for (const int threads : {1, 5}) {
    const BatchCounts counts = make_batch(
        {.count = 400, .threads = threads, .near_threshold = 0.7}, [&] { return planning(); },
        [&](const Sample& sample) { texts[threads > 1].push_back(to_json_line(sample)); });
    EXPECT_EQ(counts.kept, 400);
    EXPECT_GT(counts.empty, 0);
  }
  EXPECT_EQ(texts[0].size(), 400u);
  EXPECT_EQ(texts[0], texts[1]);
}

TEST_F(OfflineSamples, ABatchEndsWhereNothingNewComesAndThrowsWhatIsThrown) {
  const auto same = [&] { return [this](std::int64_t) { return planning()(4); }; };
  ASSERT_TRUE(planning()(4));
  const BatchCounts counts = make_batch({.count = 100, .threads = 2, .near_threshold = 0.7}, same, [](const Sample&) {});
  EXPECT_EQ(counts.kept, 1);
  EXPECT_GT(counts.near_duplicates, 1000);
  const auto broken = [] { return [](std::int64_t number) -> std::optional<Sample> { user_error("number {}", number); }; };
  EXPECT_THROW(make_batch({.count = 10, .threads = 3, .near_threshold = 0.7}, broken, [](const Sample&) {}), UserError);
}

TEST_F(OfflineSamples, TrajectoriesAreOfTheWorldAndEndAsTheirOutcomeSays) {
  const TrajectoryMaker trajectories(maker, wording, {.least_options = 2, .most_options = 4, .failed_share = 0.25});
  int made = 0, failed = 0;
  std::map<std::size_t, int> sizes;
  std::set<std::size_t> steps;
  std::map<std::size_t, std::vector<int>> places;
  for (int i = 0; i < 1500; ++i) {
    Dice dice(3, std::uint64_t(i));
    const auto one = trajectories.make(Style(i % kStyles), dice, world);
    if (!one) continue;
    ++made;
    const Trajectory& t = one->trajectory;
    failed += !*t.outcome;
    steps.insert(t.steps.size());
    ASSERT_EQ(one->options.size(), t.steps.size());
    for (std::size_t k = 0; k < t.steps.size(); ++k) {
      const OptionSet& set = one->options[k];
      EXPECT_EQ(set.options[std::size_t(set.original)], t.steps[k].content);
      EXPECT_EQ(std::set<std::string>(set.options.begin(), set.options.end()).size(), set.options.size());
      EXPECT_GE(set.options.size(), 2u);
      EXPECT_LE(set.options.size(), 4u);
      ++sizes[set.options.size()];
      places[set.options.size()].resize(set.options.size());
      ++places[set.options.size()][std::size_t(set.original)];
      for (const std::string& option : set.options) EXPECT_EQ(tools.problem_of(option), std::nullopt) << option;
      const auto call = tool_call_in(t.steps[k].content);
      EXPECT_EQ(call.has_value(), k + 1 < t.steps.size());
      if (call) {
        EXPECT_EQ(world.call(*call), t.steps[k].response);
      }
    }
    const auto said = inside_tag(t.steps.back().content, "answer");
    ASSERT_TRUE(said);
    EXPECT_EQ(*said == t.answer, *t.outcome);
    if (*t.outcome && one->question.operation == Computation::value) {
      EXPECT_NE(t.steps[t.steps.size() - 2].response->find(t.answer), std::string::npos);
    }
    EXPECT_EQ(one->sample.outcome, t.outcome);
    EXPECT_EQ(text_of(one->sample).find("Incorrect") != std::string::npos, !*t.outcome);
  }
  EXPECT_GT(made, 400);
  EXPECT_NEAR(double(failed) / made, 0.25, 4 * std::sqrt(0.19 / made));
  EXPECT_EQ(steps, (std::set<std::size_t>{2, 3, 4}));
  EXPECT_EQ(sizes.size(), 3u);
  for (const auto& [n, counts] : places) {  // positions are uniform: chi-square, far beyond its 99.9 % point
    int total = 0;
    for (const int count : counts) total += count;
    double chi = 0;
    for (const int count : counts) chi += (count - double(total) / double(n)) * (count - double(total) / double(n)) / (double(total) / double(n));
    EXPECT_LT(chi, 20) << n;
  }
}

TEST_F(OfflineSamples, BriefThoughtsSayNothingOfTheOption) {
  const TrajectoryMaker trajectories(maker, wording, {.brief_thoughts = true});
  int made = 0;
  for (int i = 0; i < 300; ++i) {
    Dice dice(4, std::uint64_t(i));
    const auto one = trajectories.make(Style(i % kStyles), dice, world);
    if (!one) continue;
    ++made;
    for (const OptionSet& set : one->options) {
      for (const std::string& option : set.options) {
        const auto thought = inside_tag(option, "think");
        ASSERT_TRUE(thought);
        EXPECT_LT(thought->size(), 30u) << option;
        EXPECT_EQ(thought->find_first_of("0123456789-"), std::string::npos) << option;
      }
    }
  }
  EXPECT_GT(made, 80);
}

}  // namespace
}  // namespace af
