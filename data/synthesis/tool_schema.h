// The tools that an agent may call, and the calls that it writes:
//   <tool_call>
//   {"name": "search", "arguments": {"query": ["..."]}}
//   </tool_call>
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/json.h"

namespace af {

struct ToolCall {
  std::string name;
  Json arguments;
  std::string code;  // PythonInterpreter's: "<code>..</code>" after the JSON, as the authors' agent writes it; else empty
};

struct Tool {
  std::string name, description;
  Json parameters;  // JSON schema of the arguments: type, properties, required, items, enum
};

class ToolSet {
 public:
  static ToolSet built_in();  // search{query[]}, visit{url[], goal}, google_scholar{query[]}, parse_file{files[]}, PythonInterpreter
  // A JSON array in OpenAI's format, [{"type": "function", "function": {"name", "description", "parameters"}}, ...], or of the inner objects.
  static ToolSet from_file(const std::string& path);  // UserError
  static ToolSet from_json(const JsonView& json);

  // What is wrong with a step; nullopt: it is exactly one valid call, or an answer and no call. Arguments that the schema does not name are wrong.
  std::optional<std::string> problem_of(std::string_view step_text) const;
  std::optional<std::string> problem_of(const ToolCall& call) const;
  const std::vector<Tool>& tools() const { return tools_; }
  std::string text() const;  // a line of JSON per tool, for prompts

 private:
  std::vector<Tool> tools_;
};

// The first whole <tool_call>..</tool_call> after the thought; nullopt where there is none or where its content is no call.
std::optional<ToolCall> tool_call_in(std::string_view step_text);
std::string tool_call_text(const ToolCall& call);  // on three lines, as above, without a new line at the end

// What lies between <tag> and </tag>, the first time; nullopt where there is no such pair. Without white space around.
std::optional<std::string_view> inside_tag(std::string_view text, std::string_view tag);
// The tags of a step do not nest and come in pairs, <think> first, at most one call or answer, and nothing but white space outside.
std::optional<std::string> structure_problem_of(std::string_view step_text);

}  // namespace af
