// Which steps are valid calls of the tools, and what is wrong with the others.
#include "data/synthesis/tool_schema.h"

#include <fstream>

#include "tests/data/corpus.h"

namespace af {
namespace {

std::string step(const std::string& call) { return "<think>a <tool_call> may be good</think>\n<tool_call>\n" + call + "\n</tool_call>"; }

TEST(ToolSchema, ValidSteps) {
  const ToolSet tools = ToolSet::built_in();
  for (const std::string& text :
       {step(R"({"name": "search", "arguments": {"query": ["a", "b"]}})"), step(R"({"name": "visit", "arguments": {"url": ["u"], "goal": "g"}})"),
        step(R"({"arguments": {"files": ["x.pdf"]}, "name": "parse_file"})"), step(R"({"name": "google_scholar", "arguments": {"query": ["a"]}})"),
        step("{\"name\": \"PythonInterpreter\", \"arguments\": {}}\n<code>\nprint(1)\n</code>"), std::string("<answer>42</answer>"),
        std::string(" <think>x</think><answer>\n4\n</answer>\n"),
        std::string("<tool_call>{\"name\": \"search\", \"arguments\": {\"query\": [\"a\"]}}</tool_call>")}) {
    EXPECT_EQ(tools.problem_of(text).value_or(""), "") << text;
  }
}

TEST(ToolSchema, WhatIsWrong) {
  const ToolSet tools = ToolSet::built_in();
  const std::vector<std::pair<std::string, std::string>> cases{
      {"", "neither a call nor an answer"},
      {"<think>x</think>", "neither a call nor an answer"},
      {"just text", "text outside <think>, <tool_call> and <answer>: \"just text\""},
      {"<think>x", "<think> is not closed"},
      {"<think>x</think><tool_call>{}", "<tool_call> is not closed"},
      {"<answer>x</answer><think>y</think>", "<think> after the call or the answer"},
      {"<answer>x</answer><answer>y</answer>", "0 calls and 2 answers"},
      {"<think>a</think><think>b</think><answer>y</answer>", "2 thoughts"},
      {"<answer> </answer>", "the answer is empty"},
      {"<tool_call><tool_call>{}</tool_call>", "<tool_call> inside <tool_call>"},
      {step("{"), "tool call:1"},
      {step("[]"), "tool call: expected an object"},
      {step(R"({"name": "search"})"), "arguments"},
      {step(R"({"name": "search", "arguments": "x"})"), "'arguments' is no object"},
      {step(R"({"name": "search", "arguments": {"query": ["a"]}, "id": 1})"), "there is no 'id'"},
      {step(R"({"name": "browse", "arguments": {}})"), "there is no tool 'browse'; there are: search, visit"},
      {step(R"({"name": "search", "arguments": {"query": "a"}})"), "search.query: expected array, found the string \"a\""},
      {step(R"({"name": "search", "arguments": {"query": [1]}})"), "search.query[0]: expected string"},
      {step(R"({"name": "search", "arguments": {"query": []}})"), "search.query: is empty"},
      {step(R"({"name": "search", "arguments": {"query": ["a"], "k": 3}})"), "search: there is no 'k'"},
      {step(R"({"name": "visit", "arguments": {"url": ["u"]}})"), "visit: 'goal' is missing"},
      {step(R"({"name": "PythonInterpreter", "arguments": {}})"), "there is no <code>"},
      {step(R"({"name": "search", "arguments": {"query": ["a"]}})"
            "\n<code>x</code>"),
       "search takes no code"},
      {step(R"({"name": "search", "arguments": {"query": ["a"]}})") + step(R"({"name": "search", "arguments": {"query": ["a"]}})"), "<think> after"},
      {"<tool_call>{\"name\": \"search\", \"arguments\": {\"query\": [\"a\"]}}</tool_call><answer>x</answer>", "1 calls and 1 answers"},
  };
  for (const auto& [text, expected] : cases) {
    const std::string problem = tools.problem_of(text).value_or("nothing");
    EXPECT_NE(problem.find(expected), std::string::npos) << text << "\n" << problem;
  }
}

TEST(ToolSchema, TextsOfCalls) {
  const std::string text =
      "<tool_call>\n{\"name\": \"visit\", \"arguments\": {\"url\": [\"a\", \"\\\"b\\\"\"], \"goal\": \"\xe2\x82\xac\"}}\n</tool_call>";
  const std::optional<ToolCall> call = tool_call_in("<think>not <tool_call>x</tool_call></think>\n" + text);
  ASSERT_TRUE(call.has_value());
  EXPECT_EQ(tool_call_text(*call), text);
  const std::string python = "<tool_call>\n{\"name\": \"PythonInterpreter\", \"arguments\": {}}\n<code>\nprint(\"</tool>\")\n</code>\n</tool_call>";
  EXPECT_EQ(tool_call_text(tool_call_in(python).value()), python);
  EXPECT_FALSE(tool_call_in("<think>x</think><answer>y</answer>").has_value());
  EXPECT_FALSE(tool_call_in(step("{}")).has_value());
  EXPECT_EQ(inside_tag("a <b> c </b> <b>d</b>", "b"), "c");
  EXPECT_FALSE(inside_tag("<b>c", "b").has_value());
}

TEST(ToolSchema, FromAFile) {
  ScratchFolder folder;
  const auto complaint = [&](const std::string& text) {
    std::ofstream(folder / "tools.json") << text;
    return complaint_of([&] { ToolSet::from_file(folder / "tools.json"); });
  };
  const std::string parameters =
      R"({"type": "object", "properties": {"n": {"type": ["integer", "null"]}, "unit": {"enum": ["m", "km"]}}, "required": ["n"]})";
  EXPECT_EQ(complaint(R"([{"type": "function", "function": {"name": "measure", "description": "d", "parameters": )" + parameters + "}}]"), "");
  const ToolSet tools = ToolSet::from_file(folder / "tools.json");
  EXPECT_FALSE(tools.problem_of(step(R"({"name": "measure", "arguments": {"n": null, "unit": "m"}})")).has_value());
  EXPECT_EQ(tools.problem_of(step(R"({"name": "measure", "arguments": {"n": 1.5}})")), "measure.n: expected integer or null, found the number 1.5");
  EXPECT_EQ(tools.problem_of(step(R"({"name": "measure", "arguments": {"n": 1, "unit": "mile"}})")),
            "measure.unit: the string \"mile\" is not in [\"m\",\"km\"]");
  EXPECT_NE(complaint("[]").find("there are no tools"), std::string::npos);
  EXPECT_NE(complaint(R"([{"name": "a"}])").find("parameters"), std::string::npos);
  EXPECT_NE(complaint(R"([{"name": "a", "parameters": {"type": "text"}}])").find("'text' is no type"), std::string::npos);
  EXPECT_NE(complaint(R"([{"name": "a", "parameters": {"properties": {"x": {"items": 3}}}}])").find("expected an object"), std::string::npos);
  EXPECT_NE(complaint(R"([{"name": "a", "parameters": {}}, {"name": "a", "parameters": {}}])").find("two tools 'a'"), std::string::npos);
}

}  // namespace
}  // namespace af
