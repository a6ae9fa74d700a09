// What a teacher's reply says: the tags that the prompts ask for, wherever they stand among other words.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/synthesis/tool_schema.h"

namespace af {

// What lies in the last pair <tag>..</tag>: a teacher that thinks aloud mentions tags before. Without white space around; nullopt: no pair.
std::optional<std::string> last_in_tag(std::string_view reply, std::string_view tag);

// One of `words`: inside the last <verdict>, or what the reply consists of, capitals and full stop aside. nullopt: another word or none.
std::optional<std::string> verdict_in(std::string_view reply, const std::vector<std::string>& words);

// A step in the form of the released trajectories: "<think>\n..\n</think>\n<tool_call>\n{..}\n</tool_call>" or with "<answer>\n..\n</answer>".
// A thought of the teacher's own before it, and text around the tags, are dropped.
struct ReadStep {
  std::string text, thought;  // text "" where there is no step
  std::string problem;        // "": the step is valid; else why it cannot be used
  bool invalid_tool = false;  // the call can be read, but its tool or its arguments are wrong
  std::optional<ToolCall> call;
  std::string answer;
};
ReadStep step_in(std::string_view reply, const ToolSet& tools);

std::string step_text(std::string_view thought, std::string_view act);  // act: the tool_call_text() or answer_text()
std::string answer_text(std::string_view answer);

}  // namespace af
