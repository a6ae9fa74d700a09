#include "data/synthesis/reply.h"

#include <fmt/core.h>

#include <algorithm>

#include "data/text.h"

namespace af {
namespace {

struct Pair {
  std::size_t begin, end;  // with the tags
  std::string_view content;
};

std::optional<Pair> last_pair(std::string_view text, std::string_view tag) {
  const std::string open = fmt::format("<{}>", tag), close = fmt::format("</{}>", tag);
  const std::size_t end = text.rfind(close);
  if (end == std::string_view::npos) return std::nullopt;
  const std::size_t begin = text.substr(0, end).rfind(open);
  if (begin == std::string_view::npos) return std::nullopt;
  return Pair{begin, end + close.size(), trimmed(text.substr(begin + open.size(), end - begin - open.size()))};
}

}  // namespace

std::optional<std::string> last_in_tag(std::string_view reply, std::string_view tag) {
  const std::optional<Pair> pair = last_pair(reply, tag);
  return pair ? std::optional<std::string>(pair->content) : std::nullopt;
}

std::optional<std::string> verdict_in(std::string_view reply, const std::vector<std::string>& words) {
  std::string said = last_in_tag(reply, "verdict").value_or(std::string(trimmed(reply)));
  if (said.ends_with('.')) said.pop_back();
  for (char& c : said) c = c >= 'A' && c <= 'Z' ? char(c + 32) : c == ' ' ? '_' : c;
  return std::find(words.begin(), words.end(), said) == words.end() ? std::nullopt : std::optional(said);
}

std::string answer_text(std::string_view answer) { return fmt::format("<answer>\n{}\n</answer>", answer); }

std::string step_text(std::string_view thought, std::string_view act) { return fmt::format("<think>\n{}\n</think>\n{}", thought, act); }

ReadStep step_in(std::string_view reply, const ToolSet& tools) {
  ReadStep step;
  const std::optional<Pair> think = last_pair(reply, "think");
  if (!think || think->content.empty()) return step.problem = "there is no <think>..</think>", step;
  const std::string_view act = reply.substr(think->end);
  const std::optional<std::string_view> call = inside_tag(act, "tool_call"), answer = inside_tag(act, "answer");
  if (!call && !answer) return step.problem = "neither a call nor an answer after the thought", step;
  if (call && answer) return step.problem = "a call and an answer", step;
  step.thought = think->content;
  if (answer) {
    if (answer->empty()) return step.problem = "the answer is empty", step;
    step.answer = *answer;
    step.text = step_text(step.thought, answer_text(*answer));
  } else {
    step.invalid_tool = true;
    const std::string written = fmt::format("<tool_call>\n{}\n</tool_call>", *call);
    step.call = tool_call_in(written);
    step.text = step_text(step.thought, step.call ? tool_call_text(*step.call) : written);
  }
  if (const std::optional<std::string> problem = tools.problem_of(step.text)) {
    step.problem = *problem;
  } else if (inside_tag(act.substr(act.find("</tool_call>") == std::string_view::npos ? act.size() : act.find("</tool_call>") + 12), "tool_call")) {
    step.problem = "more than one call";
  } else {
    step.invalid_tool = false;
  }
  return step;
}

}  // namespace af
