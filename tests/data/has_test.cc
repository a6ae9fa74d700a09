// High-order action synthesis: with a scripted teacher, with the steps of other trajectories, and on real trajectories (AF_TEST_DATA). What is made
// is checked against its source by a reader of the text of its own; mutants of the text must be found.
#include "data/synthesis/has.h"

#include <cstdlib>
#include <fstream>

#include "data/json.h"
#include "data/synthesis/trajectory_reader.h"
#include "tests/data/corpus.h"
#include "tests/data/scripted_teacher.h"

namespace af {
namespace {

std::string call(const std::string& query, const std::string& thought = "hm") {
  return "<think>\n" + thought + "\n</think>\n<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\": [\"" + query + "\"]}}\n</tool_call>";
}
std::string answer(const std::string& text) { return "<think>\nso\n</think>\n<answer>\n" + text + "\n</answer>"; }
std::string response(const std::string& text) { return "<tool_response>\n" + text + "\n</tool_response>"; }

Trajectory toy(const std::string& id = "t") {
  return {id, "Which town?", {{call("firm"), response("one\n ")}, {call("town"), response("two")}, {answer("Turin"), std::nullopt}}, "Turin",
          {}, true};
}

// What is wrong with the text as a rendering of the trajectory, read from the text alone: every option, decision, response and the judgement in
// their places, nothing else. "": nothing.
std::string wrong_with(const Trajectory& trajectory, const Sample& sample) {
  const std::string text = text_of(sample);
  const bool solutions = sample.style == "solutions";
  std::size_t at = 0;
  const auto take = [&](const std::string& expected) {
    if (text.compare(at, expected.size(), expected) != 0) return false;
    at += expected.size();
    return true;
  };
  if (!take(trajectory.question + "\n")) return "the question";
  if (sample.decisions.size() != trajectory.steps.size()) return "the number of decisions";
  for (std::size_t k = 0; k < trajectory.steps.size(); ++k) {
    const Decision& decision = sample.decisions[k];
    if (solutions && !take(fmt::format("I have {} solutions\n", decision.options))) return "the number of solutions";
    for (int i = 1; i <= decision.options; ++i) {
      if (!take(solutions ? fmt::format("Solution [{}]:\n", i) : fmt::format("Option {}:\n", i)))
        return fmt::format("the head of option {} of step {}", i, k + 1);
      const std::string next = i < decision.options ? (solutions ? fmt::format("\nSolution [{}]:\n", i + 1) : fmt::format("\nOption {}:\n", i + 1))
                               : solutions          ? fmt::format("\nI choice Solution [{}]\n", decision.chosen)
                                                    : fmt::format("\nI will choose option {}\n", decision.chosen);
      const std::size_t end = text.find(next, at);
      if (end == std::string::npos) return fmt::format("what comes after option {} of step {}", i, k + 1);
      if ((text.substr(at, end - at) == trajectory.steps[k].content) != (i == decision.chosen)) return fmt::format("option {} of step {}", i, k + 1);
      at = end + (i < decision.options ? 1 : next.size());
    }
    const std::string said =
        solutions ? fmt::format("I choice Solution [{}]\n", decision.chosen) : fmt::format("I will choose option {}\n", decision.chosen);
    if (sample.segments.at(std::size_t(decision.segment)) != SampleSegment{Role::decision, said}) return "the decision's segment";
    const std::optional<std::string>& real = trajectory.steps[k].response;
    if (!real) continue;
    if (!take(*real)) return fmt::format("the response of step {}", k + 1);
    const SampleSegment& observed = sample.segments.at(std::size_t(decision.segment) + 1);
    if (observed.role != Role::observation || observed.text != *real) return "the response's segment";
    if (!real->ends_with('\n') && !take("\n")) return "the line's end after a response";
  }
  const std::string word = *trajectory.outcome ? "Correct" : "Incorrect";
  if (!take(solutions ? "My decision is [" + word + "]\n" : "My decision is " + word + "\n")) return "the judgement";
  if (sample.segments.back().role != Role::judgement || at != text.size()) return "the end";
  return "";
}

class Has : public testing::Test {
 protected:
  Has() : prompts_(Prompts::compiled_in()), tools_(ToolSet::built_in()) {}
  HasResult run(const Trajectory& trajectory) {
    TeacherAlternatives source(teacher_, prompts_, tools_, {});
    return synthesize_has(trajectory, source, length_, options_);
  }
  static std::string block(const std::string& step) { return "<alternative>\n" + step + "\n</alternative>\n"; }
  ScriptedTeacher teacher_;
  Prompts prompts_;
  ToolSet tools_;
  TokenCounter length_;
  HasOptions options_;
};

TEST_F(Has, AlternativesOfATeacher) {
  teacher_.say("has.alternatives", "Sure:\n" + block(call("a")) + block(call("b")) + block(answer("Rome")) + block(call("c")));
  for (HasWording wording : {HasWording::decision, HasWording::solutions}) {
    options_.wording = wording;
    const HasResult result = run(toy());
    ASSERT_TRUE(result.sample.has_value());
    EXPECT_EQ(wrong_with(toy(), *result.sample), "");
    for (const Decision& decision : result.sample->decisions) EXPECT_EQ(decision.options, 4);
    EXPECT_EQ(text_of(*result.sample).find(call("c")), std::string::npos) << "three were asked for";
  }
  // At C_k the teacher sees the steps before and their responses, and nothing of what came after.
  ASSERT_EQ(teacher_.requests.size(), 6u);
  const auto prompt = [&](std::size_t k) { return teacher_.requests[k].messages[0].content; };
  const auto sees = [&](std::size_t k, const std::string& what) { return prompt(k).find(what) != std::string::npos; };
  EXPECT_TRUE(sees(0, "(nothing yet)") && sees(0, "Which town?") && sees(0, "Propose 3 alternatives") && sees(0, "\"name\":\"visit\""));
  EXPECT_FALSE(sees(0, call("firm")) || sees(0, "one\n ") || sees(0, "Turin"));
  EXPECT_TRUE(sees(1, call("firm") + "\n" + response("one\n ") + "\n"));
  EXPECT_FALSE(sees(1, call("town")) || sees(1, response("two")) || sees(1, "Turin"));
  EXPECT_TRUE(sees(2, call("town") + "\n" + response("two") + "\n"));
  EXPECT_FALSE(sees(2, "Turin"));
}

TEST_F(Has, EveryWayOfReadingAReply) {
  const auto find = [&](const std::string& reply, int count = 3) {
    teacher_.say("has.alternatives", reply);
    return TeacherAlternatives(teacher_, prompts_, tools_, {}).find(toy(), 1, {count, 0, 0});
  };
  EXPECT_EQ(find(block(call("a")) + block(call("b"))).steps, (std::vector<std::string>{call("a"), call("b")}));
  EXPECT_EQ(find("<alternative>" + call("a") + "<alternative>" + call("b")).steps, (std::vector<std::string>{call("a"), call("b")})) << "not closed";
  EXPECT_EQ(find("So: " + call("a")).steps, std::vector<std::string>{call("a")}) << "no block at all";
  EXPECT_EQ(find(block(call("a")) + block(call("b")), 1).steps, std::vector<std::string>{call("a")});
  AlternativeSource::Found found = find(block("no step") + block("<think>x</think><tool_call>{\"name\": \"x\", \"arguments\": {}}</tool_call>") +
                                        block("<think>x</think><answer> y</answer>") + block("<think>x</think>"));
  EXPECT_EQ(found.steps, std::vector<std::string>{"<think>\nx\n</think>\n<answer>\ny\n</answer>"});
  EXPECT_EQ(found.unreadable, 2);
  EXPECT_EQ(found.invalid_tools, 1);
  EXPECT_EQ(find("").unreadable, 1);
}

TEST_F(Has, WhatIsMissingIsAskedForAgain) {
  teacher_.answers["has.alternatives"] = [&](const ChatRequest&) {  // one of three is new, one repeats the real step in other words, one is broken
    return block(call("q" + std::to_string(teacher_.requests.size()))) + block(call("firm", "other words")) + block("broken");
  };
  Trajectory trajectory = toy();
  trajectory.steps.resize(1);
  const HasResult result = run(trajectory);
  ASSERT_TRUE(result.sample.has_value());
  EXPECT_EQ(wrong_with(trajectory, *result.sample), "");
  EXPECT_EQ(result.sample->decisions[0].options, 4);
  EXPECT_EQ(teacher_.requests.size(), 3u);
  EXPECT_EQ(result.unreadable, 3);
  EXPECT_EQ(result.repeated, 2) << "of the third reply only one was taken into account";
  EXPECT_NE(teacher_.requests[0].seed, teacher_.requests[1].seed);
}

TEST_F(Has, TrajectoriesThatAreRejected) {
  const auto reason = [&](const std::string& reply) {
    teacher_.say("has.alternatives", reply);
    const HasResult result = run(toy());
    HasYields().add(result);
    return result.reject ? result.reject->reason : "";
  };
  EXPECT_EQ(reason(block(call("a"))), "") << "fewer than asked for is still a choice";
  EXPECT_EQ(reason("nothing"), "too few options");
  EXPECT_EQ(reason(block(call("firm"))), "too few options") << "the real step itself";
  EXPECT_EQ(reason("!refused"), "teacher refused");
  EXPECT_EQ(reason("!away"), "teacher failed");
  options_.max_tokens = 100;
  EXPECT_EQ(reason(block(call("a")) + block(call("b"))), "too long");
  options_.max_tokens = INT64_MAX, options_.min_tokens = 10'000;
  EXPECT_EQ(reason(block(call("a")) + block(call("b"))), "too short");
  teacher_.stop();
  EXPECT_THROW(run(toy()), TeacherError);
}

TEST_F(Has, OptionsPerStepAreDrawnUniformly) {
  teacher_.say("has.alternatives", block(call("a")) + block(call("b")) + block(call("c")) + block(call("d")));
  options_.min_options = 2, options_.max_options = 5;
  std::map<int, int> counts;
  for (int i = 0; i < 400; ++i) {
    const HasResult result = run(toy(fmt::format("t{}", i)));
    for (const Decision& decision : result.sample->decisions) ++counts[decision.options];
  }
  ASSERT_EQ(counts.size(), 4u);
  for (const auto& [options, count] : counts) EXPECT_NEAR(count, 300, 70) << options;  // 4.7 standard errors
}

TEST_F(Has, LengthsAreReached) {
  int replies = 0;
  teacher_.answers["has.alternatives"] = [&](const ChatRequest&) {
    std::string reply;
    for (int i = 0; i < 3; ++i) reply += block(call(fmt::format("query {} of {}", i, replies), std::string(400, 'x')));
    ++replies;
    return reply;
  };
  options_.min_options = 2, options_.max_options = 60;
  options_.min_tokens = 5000, options_.max_tokens = 6000;
  const HasResult result = run(toy());
  ASSERT_TRUE(result.sample.has_value());
  EXPECT_EQ(wrong_with(toy(), *result.sample), "");
  const std::int64_t tokens = length_(text_of(*result.sample));
  EXPECT_EQ(tokens, result.tokens);
  EXPECT_GE(tokens, 5000);
  EXPECT_LE(tokens, 6000);
  options_.min_tokens = 0, options_.min_options = 40, options_.max_options = 40, options_.max_tokens = 1500;
  const HasResult cut = run(toy());
  EXPECT_LE(length_(text_of(*cut.sample)), 1500);
  EXPECT_GE(length_(text_of(*cut.sample)), 1300) << "no option more than needed is dropped";
  EXPECT_EQ(wrong_with(toy(), *cut.sample), "");
}

Trajectory numbered(int i, int steps) {
  Trajectory trajectory{fmt::format("t{}", i), fmt::format("question {}", i / 2), {}, fmt::format("answer {}", i), {}, i % 3 == 0};
  for (int k = 0; k + 1 < steps; ++k) trajectory.steps.push_back({call(fmt::format("{} {}", k == 0 ? "first" : "later", 10 * i + k)), response("r")});
  trajectory.steps.push_back({answer(fmt::format("answer {}", i)), std::nullopt});
  return trajectory;
}

TEST(OtherTrajectories, StepsOfTheSamePlaceFromOtherQuestions) {
  OtherTrajectories others(5);
  for (int i = 0; i < 20; ++i) others.add(numbered(i, 3));
  TokenCounter length;
  HasOptions options;
  options.max_options = options.min_options = 7;
  for (int i = 0; i < 20; ++i) {
    const HasResult result = synthesize_has(numbered(i, 3), others, length, options);
    ASSERT_TRUE(result.sample.has_value());
    EXPECT_EQ(wrong_with(numbered(i, 3), *result.sample), "");
    const std::string text = text_of(*result.sample);
    for (int j = 0; j < 3; ++j) EXPECT_EQ(result.sample->decisions[std::size_t(j)].options, 7);
    const int twin = i % 2 ? i - 1 : i + 1;  // asks the same
    EXPECT_EQ(text.find(fmt::format("first {}\"", 10 * twin)), std::string::npos);
    EXPECT_LT(text.rfind("first "), text.find("later "));
    EXPECT_LT(text.rfind("later "), text.find("<answer>"));
    // Asked bit by bit it gives the same, and never the same twice.
    std::vector<std::string> all = others.find(numbered(i, 3), 0, {9, 0, 0}).steps, pieces;
    for (int given : {0, 4, 8}) {
      const AlternativeSource::Found found = others.find(numbered(i, 3), 0, {given == 8 ? 1 : 4, given, given});
      for (const std::string& step : found.steps) pieces.push_back(step);
    }
    EXPECT_EQ(all, pieces);
  }
}

// Each of 400 steps is as likely to be among the 20 that are kept.
TEST(OtherTrajectories, MemoryIsBounded) {
  std::vector<int> kept(10, 0);  // by tenth of the input
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    OtherTrajectories others(seed, 20);
    for (int i = 0; i < 400; ++i) others.add(numbered(2 * i, 2));
    const AlternativeSource::Found found = others.find(numbered(9001, 2), 0, {100, 0, 0});
    EXPECT_EQ(found.steps.size(), 20u);
    for (const std::string& step : found.steps) ++kept[std::size_t(std::stoi(step.substr(step.find("first ") + 6)) / 20 / 40)];
  }
  for (int count : kept) EXPECT_NEAR(count, 200, 60);
}

// Real trajectories.
class RealTrajectories : public testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("AF_TEST_DATA");
    path_ = (folder ? std::string(folder) : AF_SOURCE_DIR "/../shared/data") + "/trajectories.jsonl";
    if (!std::filesystem::exists(path_)) GTEST_SKIP() << "set AF_TEST_DATA to a folder with trajectories.jsonl";
    const std::vector<TextSource> sources{{path_, true, stamp_of(path_)}};
    TrajectoryReader reader(sources, OutcomeFrom::match, 16 << 20, [](const std::string& problem) { ADD_FAILURE() << problem; });
    for (Trajectory trajectory; reader.next(trajectory);) trajectories_.push_back(trajectory), others_.add(trajectory);
    ASSERT_EQ(trajectories_.size(), 120u);
  }
  std::vector<Sample> samples(HasWording wording, std::uint64_t seed, int count = 4) {
    HasOptions options;
    options.wording = wording, options.seed = seed, options.min_options = options.max_options = count;
    std::vector<Sample> all;
    for (const Trajectory& trajectory : trajectories_) all.push_back(synthesize_has(trajectory, others_, length_, options).sample.value());
    return all;
  }
  std::string path_;
  std::vector<Trajectory> trajectories_;
  OtherTrajectories others_{1};
  TokenCounter length_;
};

// The messages as Json::parse gives them, without the reader under test.
TEST_F(RealTrajectories, TheReaderKeepsEveryByte) {
  std::ifstream file(path_);
  std::int64_t correct = 0;
  std::size_t t = 0;
  for (std::string line; std::getline(file, line); ++t) {
    const Json json = Json::parse(line, path_);
    const Json::Array& messages = json.find("messages")->array();
    const Trajectory& trajectory = trajectories_[t];
    ASSERT_EQ(messages.size(), 2 + 2 * trajectory.steps.size() - 1);
    const std::string& asked = messages[1].find("content")->string();
    EXPECT_TRUE(asked.ends_with("\n\nUser: " + trajectory.question)) << trajectory.question;
    EXPECT_EQ(trajectory.question.find('\n'), std::string::npos);
    for (std::size_t k = 0; k < trajectory.steps.size(); ++k) {
      EXPECT_EQ(trajectory.steps[k].content, messages[2 + 2 * k].find("content")->string());
      const bool last = k + 1 == trajectory.steps.size();
      EXPECT_EQ(trajectory.steps[k].response.has_value(), !last);
      if (!last) {
        EXPECT_EQ(*trajectory.steps[k].response, messages[3 + 2 * k].find("content")->string());
      }
    }
    correct += *trajectory.outcome;
  }
  EXPECT_EQ(t, 120u);
  EXPECT_GT(correct, 40);
  EXPECT_LT(correct, 110);
}

TEST_F(RealTrajectories, BothWordingsToTheByteAndMutantsAreFound) {
  for (HasWording wording : {HasWording::decision, HasWording::solutions}) {
    const std::vector<Sample> all = samples(wording, 3);
    for (std::size_t t = 0; t < all.size(); ++t) {
      const Trajectory& trajectory = trajectories_[t];
      EXPECT_EQ(wrong_with(trajectory, all[t]), "") << trajectory.id;
      const Json json = Json::parse(to_json_line(all[t]), "sample");
      EXPECT_EQ(wrong_with(trajectory, sample_from(JsonView(json, "sample"))), "") << "after writing and reading";
      const auto mutant = [&](const std::function<void(Sample&)>& change) {
        Sample changed = all[t];
        change(changed);
        return wrong_with(trajectory, changed);
      };
      const std::size_t decision = std::size_t(all[t].decisions[0].segment);
      EXPECT_NE(mutant([&](Sample& s) { s.segments[decision + 1].text[t % 40] ^= 1; }), "") << "a bit of a response";
      EXPECT_NE(mutant([&](Sample& s) { s.segments[decision + 1].text.pop_back(); }), "") << "a byte less of a response";
      EXPECT_NE(mutant([&](Sample& s) { s.segments[decision + 1].text += " "; }), "") << "a byte more";
      EXPECT_NE(mutant([&](Sample& s) { s.decisions[0].chosen = s.decisions[0].chosen % 4 + 1; }), "") << "another position";
      EXPECT_NE(mutant([&](Sample& s) { s.segments.back().text = judgement_text(wording, !*trajectory.outcome); }), "") << "another judgement";
      EXPECT_NE(mutant([&](Sample& s) { s.segments.erase(s.segments.begin() + std::ptrdiff_t(decision)); }), "") << "no decision";
    }
  }
}

TEST_F(RealTrajectories, PositionsAreUniform) {
  std::array<int, 4> counts{};
  int total = 0;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    for (const Sample& sample : samples(HasWording::decision, seed)) {
      for (const Decision& decision : sample.decisions) ++counts[std::size_t(decision.chosen - 1)], ++total;
    }
  }
  double chi_square = 0, of_mutant = 0;  // the mutant: never shuffled
  for (int i = 0; i < 4; ++i) {
    chi_square += std::pow(counts[std::size_t(i)] - total / 4.0, 2) / (total / 4.0);
    of_mutant += std::pow((i == 0 ? total : 0) - total / 4.0, 2) / (total / 4.0);
  }
  EXPECT_EQ(total, 8 * 249);
  EXPECT_LT(chi_square, 16.3) << "three degrees of freedom, p = 0.001";
  EXPECT_GT(of_mutant, 16.3);
}

TEST_F(RealTrajectories, TheSameSeedGivesTheSameText) {
  const std::vector<Sample> once = samples(HasWording::decision, 4), again = samples(HasWording::decision, 4),
                            other = samples(HasWording::decision, 5);
  EXPECT_EQ(once, again);
  EXPECT_NE(once, other);
}

}  // namespace
}  // namespace af
