// Readers of data/synthesis: trajectories, samples, what teachers reply, prompts and tools.
#include <fmt/format.h>

#include <filesystem>

#include "core/error.h"
#include "data/file.h"
#include "data/json.h"
#include "data/synthesis/has.h"
#include "data/synthesis/reply.h"
#include "data/synthesis/trajectory_reader.h"
#include "tests/fuzz/target.h"

namespace af::fuzz {
namespace {

const std::string kCall =
    "<think>\nwhere is it?\n</think>\n<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\": [\"a\", \"b\"]}}\n</tool_call>";
const std::string kAnswer = "<think>so</think>\n<answer>Turin</answer>";

std::string trajectory_line(int i) {
  const auto message = [](const char* role, const std::string& content) { return Json(Json::Object{{"role", role}, {"content", content}}); };
  Json json;
  json.set("messages", Json::Array{message("system", "s"), message("user", "<tools>\n{}\n</tools>\n\nUser: Which town?"), message("assistant", kCall),
                                   message("user", fmt::format("<tool_response>\n page {} <|im_end|> \u00e9\r\n</tool_response>\n", i)),
                                   message("assistant", kAnswer)});
  json.set("answer", Json::Array{Json::Array{i % 2 ? "turin" : "rome"}});
  if (i == 2) json.set("outcome", true);
  return json.dump() + "\n";
}

// Whatever is read as a trajectory is rendered and read back with its responses to the byte.
Target trajectories_target() {
  Target t;
  t.name = "trajectories";
  t.rule = "a trajectory becomes a text that holds its steps and responses to the byte, and a sample that reads back";
  t.corpus = {{{"t.jsonl", trajectory_line(0)}}, {{"t.jsonl", trajectory_line(1) + trajectory_line(2) + trajectory_line(3)}}};
  t.read = [](const std::string& folder) {
    const std::string path = folder + "/t.jsonl";
    const std::vector<TextSource> sources{{path, true, stamp_of(path)}};
    std::string out, problems;
    TrajectoryReader reader(sources, OutcomeFrom::either, 1 << 20, [&](const std::string& problem) { problems += problem + "\n"; });
    for (Trajectory trajectory; reader.next(trajectory);) {
      std::vector<OptionSet> sets;
      for (const TrajectoryStep& step : trajectory.steps) sets.push_back(merge_options(step.content, {kCall, kAnswer, "x"}, 1, sets.size()));
      const Sample sample = render_has(trajectory, sets, sets.size() % 2 ? HasWording::decision : HasWording::solutions);
      const Json json = Json::parse(to_json_line(sample), "sample");
      if (sample_from(JsonView(json, "sample")) != sample) throw SilentDamage("the sample does not read back");
      const std::string text = text_of(sample);
      std::size_t at = 0;
      for (const TrajectoryStep& step : trajectory.steps) {
        for (const std::string& part : {step.content, step.response.value_or("")}) {
          at = text.find(part, at);
          if (at == std::string::npos) throw SilentDamage("the text does not hold " + part);
        }
      }
      out += text;
    }
    if (!problems.empty()) throw UserError(problems);
    return out;
  };
  return t;
}

Target samples_target() {
  Target t;
  t.name = "samples";
  t.rule = "what is read is written and read again as the same sample";
  Trajectory trajectory{"t", "Which town?", {{kCall, "<tool_response>\nx\n</tool_response>"}, {kAnswer, std::nullopt}}, "Turin", {}, true};
  const std::vector<OptionSet> sets{{{kAnswer, kCall}, 1}, {{kAnswer}, 0}};
  Sample sample = render_has(trajectory, sets, HasWording::decision);
  sample.entities = {"a", "b"};
  t.corpus = {{{"s.jsonl", to_json_line(sample)}}};
  t.read = [](const std::string& folder) {
    const Json json = Json::parse_file(folder + "/s.jsonl");
    const Sample read = sample_from(JsonView(json, folder + "/s.jsonl"));
    const Json again = Json::parse(to_json_line(read), "again");
    if (sample_from(JsonView(again, "again")) != read) throw SilentDamage("does not read back");
    return to_json_line(read);
  };
  return t;
}

// Of a reply only what the tools allow is taken for a step, in the one form that such steps have.
Target replies_target() {
  Target t;
  t.name = "replies";
  t.rule = "a step that is taken is valid against the tools, and read again it is the same";
  t.corpus = {
      {{"reply.txt", "<think>native</think>\nSure: " + kCall + "\n"}},
      {{"reply.txt", kAnswer}},
      {{"reply.txt", "<think>count</think><tool_call>{\"name\": \"PythonInterpreter\", \"arguments\": {}}\n<code>print(1)</code></tool_call>"}}};
  t.read = [](const std::string& folder) {
    const ToolSet tools = ToolSet::built_in();
    const std::string reply = read_file(folder + "/reply.txt");
    verdict_in(reply, {"keep"});
    const ReadStep step = step_in(reply, tools);
    if (!step.problem.empty()) user_error("{}/reply.txt: {}", folder, step.problem);
    if (const std::optional<std::string> problem = tools.problem_of(step.text)) throw SilentDamage(*problem + ": " + step.text);
    if (step_in(step.text, tools).text != step.text) throw SilentDamage("another step when read again: " + step.text);
    return step.text;
  };
  return t;
}

Target settings_target() {
  Target t;
  t.name = "prompts_and_tools";
  t.rule = "a prompt can be filled, and any call can be checked against the tools";
  t.corpus = {{{"prompts/has_alternatives.txt", "Of {question} {\"after\"} {history}: {count}, {tools}\n"},
               {"tools.json", R"([{"type": "function", "function": {"name": "search", "description": "d", "parameters": {"type": "object",
                 "properties": {"query": {"type": ["array", "null"], "items": {"type": "string"}, "minItems": 1}, "unit": {"enum": ["m"]}}, "required": ["query"]}}}])"}}};
  t.read = [](const std::string& folder) {
    const Prompts prompts = Prompts::with_folder(folder + "/prompts");
    const ToolSet tools = ToolSet::from_file(folder + "/tools.json");
    std::string out = prompts.fill("has_alternatives", {{"question", "q"}, {"history", "h"}, {"count", "3"}, {"tools", tools.text()}});
    for (const char* arguments : {"{}", "{\"query\": [\"a\"]}", "{\"query\": {\"x\": 1}}", "{\"unit\": \"m\", \"query\": [[1]]}"}) {
      out += tools.problem_of(ToolCall{tools.tools()[0].name, Json::parse(arguments, "a"), ""}).value_or("valid") + "\n";
    }
    return out;
  };
  return t;
}

}  // namespace

std::vector<Target> synthesis_targets() { return {trajectories_target(), samples_target(), replies_target(), settings_target()}; }

}  // namespace af::fuzz
