// The contrastive text of a trajectory, in both wordings, and where the original stands among the options.
#include "data/synthesis/has_text.h"

#include <cmath>

#include "data/json.h"
#include "tests/data/corpus.h"

namespace af {
namespace {

const std::string kCall = "<think>\nwhere?\n</think>\n<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\": [\"a\"]}}\n</tool_call>";
const std::string kOther =
    "<think>why?</think>\n<tool_call>\n{\"name\": \"visit\", \"arguments\": {\"url\": [\"u\"], \"goal\": \"g\"}}\n</tool_call>";
const std::string kAnswer = "<think>so</think>\n<answer>\nParis\n</answer>";
const std::string kResponse = "<tool_response>\n  My decision is Correct <|im_end|>\n</tool_response>";

Trajectory toy() { return {"t1", "Which town?", {{kCall, kResponse}, {kAnswer, std::nullopt}}, "Paris", {}, true}; }

std::vector<std::string> lines_of(const Sample& sample) {
  std::vector<std::string> lines;
  for (const SampleSegment& segment : sample.segments) lines.push_back(std::string(kRoleNames[std::size_t(segment.role)]) + ": " + segment.text);
  return lines;
}

TEST(HasText, TheDecisionWording) {
  const std::vector<OptionSet> options{{{kOther, kCall}, 1}, {{kAnswer, kOther}, 0}};
  const Sample sample = render_has(toy(), options, HasWording::decision);
  EXPECT_EQ(text_of(sample), "Which town?\nOption 1:\n" + kOther + "\nOption 2:\n" + kCall + "\nI will choose option 2\n" + kResponse +
                                 "\nOption 1:\n" + kAnswer + "\nOption 2:\n" + kOther + "\nI will choose option 1\nMy decision is Correct\n");
  EXPECT_EQ(lines_of(sample), (std::vector<std::string>{"user: Which town?\n",
                                                        "other: Option 1:\n",
                                                        "thought: <think>why?</think>",
                                                        "other: \n",
                                                        "action: " + kOther.substr(kOther.find("<tool_call>")),
                                                        "other: \nOption 2:\n",
                                                        "thought: <think>\nwhere?\n</think>",
                                                        "other: \n",
                                                        "action: " + kCall.substr(kCall.find("<tool_call>")),
                                                        "other: \n",
                                                        "decision: I will choose option 2\n",
                                                        "observation: " + kResponse,
                                                        "other: \nOption 1:\n",
                                                        "thought: <think>so</think>",
                                                        "other: \n",
                                                        "answer: <answer>\nParis\n</answer>",
                                                        "other: \nOption 2:\n",
                                                        "thought: <think>why?</think>",
                                                        "other: \n",
                                                        "action: " + kOther.substr(kOther.find("<tool_call>")),
                                                        "other: \n",
                                                        "decision: I will choose option 1\n",
                                                        "judgement: My decision is Correct\n"}));
  EXPECT_EQ(sample.decisions, (std::vector<Decision>{{10, 2, 2}, {21, 2, 1}}));
  EXPECT_EQ(sample.style + sample.kind + sample.id + sample.answer, "decisionhast1Paris");
}

TEST(HasText, TheSolutionsWording) {
  Trajectory trajectory = toy();
  trajectory.outcome = false;
  const std::vector<OptionSet> options{{{kOther, kCall}, 1}, {{kAnswer}, 0}};
  EXPECT_EQ(text_of(render_has(trajectory, options, HasWording::solutions)),
            "Which town?\nI have 2 solutions\nSolution [1]:\n" + kOther + "\nSolution [2]:\n" + kCall + "\nI choice Solution [2]\n" + kResponse +
                "\nI have 1 solutions\nSolution [1]:\n" + kAnswer + "\nI choice Solution [1]\nMy decision is [Incorrect]\n");
}

TEST(HasText, WithoutOutcomeAndWithALastResponse) {
  Trajectory trajectory = toy();
  trajectory.steps.pop_back();
  trajectory.outcome.reset();
  const std::vector<OptionSet> options{{{kCall}, 0}};
  const std::string text = text_of(render_has(trajectory, options, HasWording::decision));
  EXPECT_TRUE(text.ends_with("I will choose option 1\n" + kResponse));
  trajectory.outcome = true;
  EXPECT_EQ(text_of(render_has(trajectory, options, HasWording::decision)), text + "\nMy decision is Correct\n");
}

TEST(HasText, AnotherOriginalOrAByteLessIsABug) {
  std::vector<OptionSet> options{{{kOther, kCall}, 0}, {{kAnswer}, 0}};
  EXPECT_THROW(render_has(toy(), options, HasWording::decision), InternalError);
  options[0] = {{kOther, kCall.substr(1)}, 1};
  EXPECT_THROW(render_has(toy(), options, HasWording::decision), InternalError);
  options[0] = {{kCall}, 1};
  EXPECT_THROW(render_has(toy(), options, HasWording::decision), InternalError);
  options.pop_back();
  EXPECT_THROW(render_has(toy(), options, HasWording::decision), InternalError);
}

TEST(MergeOptions, EachTextOnceAndTheOriginalWhereItSays) {
  for (std::uint64_t stream = 0; stream < 100; ++stream) {
    const OptionSet set = merge_options("o", {"a", "o", "b", "a", "c"}, 7, stream);
    std::vector<std::string> sorted = set.options;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(sorted, (std::vector<std::string>{"a", "b", "c", "o"}));
    EXPECT_EQ(set.options.at(std::size_t(set.original)), "o");
  }
  EXPECT_EQ(merge_options("o", {"o", "o"}, 1, 1).options, std::vector<std::string>{"o"});
}

// Every order of four is as frequent: chi-square with 23 degrees of freedom, 24,000 shuffles; above 60 once in 40,000.
double chi_square_of_orders(const std::function<std::vector<std::string>(std::uint64_t)>& shuffle) {
  std::map<std::vector<std::string>, int> counts;
  for (std::uint64_t stream = 0; stream < 24'000; ++stream) ++counts[shuffle(stream)];
  double sum = (24.0 - double(counts.size())) * 1000;
  for (const auto& [order, count] : counts) sum += std::pow(count - 1000.0, 2) / 1000;
  return sum;
}

TEST(MergeOptions, EveryOrderIsAsFrequent) {
  const auto ours = [](std::uint64_t stream) { return merge_options("o", {"a", "b", "c"}, 3, stream).options; };
  EXPECT_LT(chi_square_of_orders(ours), 60);
  // Mutants: not shuffled; the original moved to a uniform place and the others left in order.
  EXPECT_GT(chi_square_of_orders([](std::uint64_t) { return std::vector<std::string>{"o", "a", "b", "c"}; }), 60);
  EXPECT_GT(chi_square_of_orders([](std::uint64_t stream) {
              std::vector<std::string> order{"a", "b", "c"};
              order.insert(order.begin() + std::ptrdiff_t(stream % 4), "o");
              return order;
            }),
            60);
}

TEST(Sample, ThereAndBack) {
  const std::vector<OptionSet> options{{{kOther, kCall}, 1}, {{kAnswer}, 0}};
  Sample sample = render_has(toy(), options, HasWording::solutions);
  sample.entities = {"a \"b\"", "\xe2\x82\xac"};
  sample.teacher = "offline";
  const std::string line = to_json_line(sample);
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
  const Json json = Json::parse(line, "has.jsonl");
  EXPECT_EQ(sample_from(JsonView(json, "has.jsonl:1")), sample);
  sample.outcome.reset();
  const Json without = to_json(sample);
  EXPECT_EQ(sample_from(JsonView(without, "x")), sample);
}

TEST(Sample, WhatIsWrongIsNamed) {
  const std::vector<OptionSet> options{{{kOther, kCall}, 1}, {{kAnswer}, 0}};
  const Sample good = render_has(toy(), options, HasWording::decision);
  const auto complaint = [&](const std::function<void(Json&)>& change) {
    Json json = to_json(good);
    change(json);
    return complaint_of([&] { sample_from(JsonView(json, "has.jsonl:4")); });
  };
  const auto decision = [](int segment, int count, int chosen) {
    return Json(Json::Array{Json::Object{{"segment", segment}, {"options", count}, {"chosen", chosen}}});
  };
  EXPECT_EQ(complaint([](Json&) {}), "");
  const std::vector<std::pair<std::function<void(Json&)>, std::string>> cases{
      {[](Json& json) {
         json.set("segments", Json::Array{Json::Object{{"role", "narrator"}, {"text", "x"}}});
       },
       "segments[0].role: 'narrator' is no role"},
      {[](Json& json) { json.set("segments", Json::Array{}); }, "there are no segments"},
      {[](Json& json) { json.set("answer", 3); }, "answer: expected a string"},
      {[&](Json& json) { json.set("decisions", decision(0, 2, 1)); }, "segment 0 is no decision but user"},
      {[&](Json& json) { json.set("decisions", decision(99, 2, 1)); }, "decisions[0].segment: 99 is not in 0 ... 18"},
      {[&](Json& json) { json.set("decisions", decision(10, 2, 3)); }, "decisions[0].chosen: 3 is not in 1 ... 2"},
      {[](Json& json) { json.set("outcome", "yes"); }, "outcome: expected true or false"},
  };
  for (const auto& [change, expected] : cases) {
    EXPECT_NE(complaint(change).find(expected), std::string::npos) << complaint(change);
    EXPECT_TRUE(complaint(change).starts_with("has.jsonl:4: "));
  }
}

}  // namespace
}  // namespace af
