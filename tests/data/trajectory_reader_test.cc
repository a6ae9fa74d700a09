// Trajectories from JSON lines, and what is said of lines that hold none.
#include "data/synthesis/trajectory_reader.h"

#include <fstream>

#include "data/json.h"
#include "tests/data/corpus.h"

namespace af {
namespace {

std::string message(const std::string& role, const std::string& content) { return Json(Json::Object{{"role", role}, {"content", content}}).dump(); }
const std::string kCall = "<think>x</think>\n<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\": [\"a\"]}}\n</tool_call>";
const std::string kResponse = "<tool_response>\n<|im_end|> <think> </tool_call>\n</tool_response>\n";
const std::string kAnswer = "<think>is it <answer>?</think>\n<answer>\nIt is **Turin**, in Italy.\n</answer>";

std::string line_of(const std::vector<std::string>& messages, const std::string& more = ", \"answer\": \"turin\"") {
  std::string text;
  for (const std::string& one : messages) text += (text.empty() ? "" : ",") + one;
  return "{\"messages\": [" + text + "]" + more + "}";
}
std::string good(const std::string& more = ", \"answer\": \"turin\"") {
  return line_of({message("system", "s"), message("user", " Which town?\n"), message("assistant", kCall), message("user", kResponse),
                  message("assistant", "<think>y</think><answer>Turin</answer>")},
                 more);
}

Trajectory read(const std::string& line, OutcomeFrom outcome = OutcomeFrom::either) {
  const Json json = Json::parse(line, "t.jsonl");
  return trajectory_from(JsonView(json, "t.jsonl:3"), outcome);
}

TEST(TrajectoryReader, ATrajectory) {
  const Trajectory trajectory = read(good());
  EXPECT_EQ(trajectory.question, "Which town?");
  ASSERT_EQ(trajectory.steps.size(), 2u);
  EXPECT_EQ(trajectory.steps[0].content, kCall);
  EXPECT_EQ(trajectory.steps[0].response, kResponse) << "to the byte";
  EXPECT_FALSE(trajectory.steps[1].response.has_value());
  EXPECT_EQ(trajectory.outcome, true);
  EXPECT_EQ(read(good(", \"answer\": \"x\", \"id\": 17")).id, "17");
  EXPECT_EQ(read(good(", \"answer\": \"x\", \"id\": \"a\"")).id, "a");
}

TEST(TrajectoryReader, QuestionsAfterTheToolsAndOtherRoles) {
  const std::string tools = "Use these.\n<tools>\n{}\n</tools>\nUser: is not it\n\nUser: In which\nUser: town? ";
  Trajectory trajectory =
      read(line_of({message("user", tools), message("assistant", kCall), message("tool", "plain"), message("assistant", "<answer>x</answer>")}));
  EXPECT_EQ(trajectory.question, "town?");
  EXPECT_EQ(trajectory.steps[0].response, "plain");
  EXPECT_EQ(read(line_of({message("user", "A\nUser: B"), message("assistant", "<answer>x</answer>")})).question, "A\nUser: B") << "no tools";
  trajectory = read(line_of({message("user", "q"), message("assistant", kCall), message("user", kResponse)}));
  EXPECT_EQ(trajectory.steps.size(), 1u);
  EXPECT_EQ(trajectory.outcome, false) << "it ends without an answer";
}

TEST(TrajectoryReader, Outcomes) {
  const auto outcome = [](const std::string& more, OutcomeFrom from) { return *read(good(more), from).outcome; };
  EXPECT_FALSE(outcome(", \"answer\": \"turin\", \"outcome\": false", OutcomeFrom::either));
  EXPECT_TRUE(outcome(", \"answer\": \"turin\", \"outcome\": false", OutcomeFrom::match));
  EXPECT_TRUE(outcome(", \"outcome\": 1", OutcomeFrom::given));
  EXPECT_FALSE(outcome(", \"outcome\": 0", OutcomeFrom::either));
  EXPECT_TRUE(outcome(", \"answer\": [[\"rome\"], \"The Turin\"]", OutcomeFrom::match));
  EXPECT_FALSE(outcome(", \"answer\": [[\"rome\"]]", OutcomeFrom::match));
  const auto says = [](const std::string& text, const std::string& right) {
    return *read(line_of({message("user", "q"), message("assistant", "<think><answer>no</answer></think><answer>" + text + "</answer>")},
                         ", \"answer\": " + Json(right).dump()),
                 OutcomeFrom::match)
                .outcome;
  };
  EXPECT_TRUE(says("It is **Turin**, in Italy.", "turin"));
  EXPECT_FALSE(says("It is Saturina.", "turin"));
  EXPECT_TRUE(says("\xe8\xbf\x99\xe6\x98\xaf\xe9\x83\xbd\xe7\x81\xb5\xe5\xb8\x82", "\xe9\x83\xbd\xe7\x81\xb5"));
  EXPECT_FALSE(outcome(", \"answer\": [\"\", \"rome\"]", OutcomeFrom::match));  // no words match nothing
}

TEST(TrajectoryReader, WhatIsWrongIsNamed) {
  const std::string user = message("user", "q"), step = message("assistant", kCall), reply = message("user", kResponse),
                    end = message("assistant", "<answer>x</answer>");
  const std::vector<std::pair<std::string, std::string>> cases{
      {"[]", "expected an object"},
      {"{}", "messages"},
      {line_of({}), "there are no messages"},
      {line_of({user}), "there is no step"},
      {line_of({user, reply}), "messages[1]: a response without a step"},
      {line_of({user, step, step}), "messages[2]: two steps without a response"},
      {line_of({user, step, message("user", "and now?")}), "messages[2]: a second question"},
      {line_of({reply, step}), "messages[0]: expected the question"},
      {line_of({step}), "messages[0]: expected the question (role user), found assistant"},
      {line_of({message("user", " \n"), end}), "messages[0]: the question is empty"},
      {line_of({user, message("system", "s"), end}), "messages[1]: a system message after the question"},
      {line_of({user, message("assistant", "")}), "messages[1]: the step is empty"},
      {line_of({user, message("assistant", "<tool_call>{}")}), "messages[1]: 1 <tool_call> and 0 </tool_call>; they come in pairs"},
      {line_of({user, message("assistant", "<think>a<think>b</think>")}), "2 <think> and 1 </think>"},
      {line_of({user, message("assistant", "</answer>")}), "0 <answer> and 1 </answer>"},
      {line_of({user, end}, ""), "there is neither 'outcome' nor an 'answer'"},
      {line_of({user, end}, ", \"answer\": \"\""), "'answer' has no words to judge by"},
      {line_of({user, end}, ", \"answer\": [\" ...\", \"\"]"), "'answer' has no words to judge by"},
      {line_of({user, end}, ", \"answer\": []"), "there is neither 'outcome' nor an 'answer'"},
      {line_of({user, end}, ", \"answer\": [3]"), "answer[0]: expected a string"},
      {line_of({user, end}, ", \"outcome\": \"yes\""), "outcome: expected true, false, 1 or 0, found the string \"yes\""},
      {line_of({user, message("bot", "x")}), "'bot' is none of"},
      {"{\"messages\": [{\"role\": \"user\", \"content\": null}]}", "content: expected a string"},
  };
  for (const auto& [line, expected] : cases) {
    const std::string complaint = complaint_of([&] { read(line); });
    EXPECT_NE(complaint.find(expected), std::string::npos) << line << "\n" << complaint;
    EXPECT_TRUE(complaint.starts_with("t.jsonl:3")) << complaint;
  }
  EXPECT_NE(complaint_of([&] { read(good(), OutcomeFrom::given); }).find("outcome"), std::string::npos);
}

TEST(TrajectoryReader, BadLinesAreNamedAndTheOthersUnharmed) {
  ScratchFolder folder;
  {
    std::ofstream a(folder / "a.jsonl", std::ios::binary), b(folder / "b.jsonl", std::ios::binary);
    a << good() << "\n\n{\"messages\": [\n"
      << good(", \"answer\": \"\xff\"") << "\n"
      << std::string(3'000'000, 'x') << "\n"
      << good() << "\n"
      << good() << " trailing\n";
    b << "\xef\xbb\xbf" << good() << "\r\n" << good().substr(0, 50) << "\n" << good();  // the last line is not ended
  }
  const std::vector<TextSource> sources{{folder / "a.jsonl", true, stamp_of(folder / "a.jsonl")},
                                        {folder / "b.jsonl", true, stamp_of(folder / "b.jsonl")}};
  std::vector<std::string> problems, ids;
  TrajectoryReader reader(sources, OutcomeFrom::either, 1 << 20, [&](const std::string& problem) { problems.push_back(problem); });
  for (Trajectory trajectory; reader.next(trajectory);) ids.push_back(trajectory.id);
  EXPECT_EQ(ids, (std::vector<std::string>{"a.jsonl:1", "a.jsonl:6", "b.jsonl:1", "b.jsonl:3"}));
  ASSERT_EQ(problems.size(), 5u);
  EXPECT_EQ(reader.skipped(), 5);
  EXPECT_EQ(reader.fraction(), 1);
  const std::vector<std::string> places{
      "a.jsonl:3:", "a.jsonl:4:", "a.jsonl:5: the line has 3000000 bytes, more than the 1048576 of --max-line-bytes", "a.jsonl:7:", "b.jsonl:2:"};
  for (std::size_t i = 0; i < places.size(); ++i) {
    EXPECT_NE(problems[i].find(places[i]), std::string::npos) << problems[i];
    EXPECT_LE(problems[i].size(), 1000u);
  }
}

}  // namespace
}  // namespace af
