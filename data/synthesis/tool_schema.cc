#include "data/synthesis/tool_schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "data/text.h"

namespace af {
namespace {

constexpr const char* kPython = "PythonInterpreter";

constexpr const char* kBuiltIn = R"json([
{"name": "search", "description": "Performs batched web searches: an array 'query'; the top 10 results for each query in one call.",
 "parameters": {"type": "object", "properties": {"query": {"type": "array", "items": {"type": "string"}, "minItems": 1}}, "required": ["query"]}},
{"name": "visit", "description": "Visits web pages and returns what they say about the goal.",
 "parameters": {"type": "object", "properties": {"url": {"type": "array", "items": {"type": "string"}, "minItems": 1}, "goal": {"type": "string"}},
  "required": ["url", "goal"]}},
{"name": "google_scholar", "description": "Searches academic publications: an array 'query'.",
 "parameters": {"type": "object", "properties": {"query": {"type": "array", "items": {"type": "string"}, "minItems": 1}}, "required": ["query"]}},
{"name": "parse_file", "description": "Reads files that the user has given: an array 'files' of their names.",
 "parameters": {"type": "object", "properties": {"files": {"type": "array", "items": {"type": "string"}, "minItems": 1}}, "required": ["files"]}},
{"name": "PythonInterpreter", "description": "Runs Python code: 'arguments' is empty, the code stands in <code></code> after the JSON.",
 "parameters": {"type": "object", "properties": {}, "required": []}}
])json";

bool has_type(const Json& value, std::string_view type) {
  if (type == "string") return value.is_string();
  if (type == "array") return value.is_array();
  if (type == "object") return value.is_object();
  if (type == "integer") return value.is_integer();
  if (type == "number") return value.is_number();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  return true;
}

// A type may be a list of types.
std::vector<std::string> types_of(const Json& schema) {
  const Json* type = schema.find("type");
  if (!type) return {};
  if (type->is_string()) return {type->string()};
  std::vector<std::string> types;
  for (const Json& one : type->array()) types.push_back(one.string());
  return types;
}

std::optional<std::string> schema_problem(const Json& value, const Json& schema, const std::string& where) {
  const std::vector<std::string> types = types_of(schema);
  if (!types.empty() && std::none_of(types.begin(), types.end(), [&](const std::string& type) { return has_type(value, type); })) {
    return fmt::format("{}: expected {}, found {}", where, fmt::join(types, " or "), value.describe());
  }
  if (const Json* allowed = schema.find("enum"); allowed && allowed->is_array()) {
    const Json::Array& values = allowed->array();
    if (std::find(values.begin(), values.end(), value) == values.end())
      return fmt::format("{}: {} is not in {}", where, value.describe(), allowed->dump());
  }
  if (value.is_array()) {
    const Json *items = schema.find("items"), *least = schema.find("minItems");
    if (least && least->is_integer() && std::int64_t(value.array().size()) < least->integer()) return fmt::format("{}: is empty", where);
    for (std::size_t i = 0; items && i < value.array().size(); ++i) {
      if (auto problem = schema_problem(value.array()[i], *items, fmt::format("{}[{}]", where, i))) return problem;
    }
  }
  if (value.is_object()) {
    const Json *properties = schema.find("properties"), *required = schema.find("required");
    for (std::size_t i = 0; required && i < required->array().size(); ++i) {
      const std::string& name = required->array()[i].string();
      if (!value.find(name)) return fmt::format("{}: '{}' is missing", where, name);
    }
    for (const Json::Member& member : value.object()) {
      const Json* property = properties ? properties->find(member.first) : nullptr;
      if (properties && !property) return fmt::format("{}: there is no '{}'", where, member.first);
      if (!property) continue;
      if (auto problem = schema_problem(member.second, *property, where + "." + member.first)) return problem;
    }
  }
  return std::nullopt;
}

// UserError where a schema is no schema, so that checking a call against it throws nothing.
void check_schema(const JsonView& schema) {
  if (schema.object().empty()) return;
  static constexpr std::array kTypes{"string", "array", "object", "integer", "number", "boolean", "null"};
  if (schema.has("type")) {
    const JsonView type = schema["type"];
    const auto check = [&](const JsonView& name) {
      if (std::find(kTypes.begin(), kTypes.end(), name.string()) == kTypes.end())
        user_error("{}: '{}' is no type of JSON schema", name.where(), name.string());
    };
    if (type.value().is_array()) {
      for (std::size_t i = 0; i < type.size(); ++i) check(type[i]);
    } else {
      check(type);
    }
  }
  if (schema.has("properties")) {
    for (const Json::Member& property : schema["properties"].object()) check_schema(schema["properties"][property.first]);
  }
  if (schema.has("items")) check_schema(schema["items"]);
  for (std::size_t i = 0; schema.has("required") && i < schema["required"].size(); ++i) schema["required"][i].string();
}

// On one line with ", " and ": ", as in the released trajectories.
std::string spaced(const Json& json) {
  std::string text;
  if (json.is_array()) {
    for (const Json& element : json.array()) text += (text.empty() ? "" : ", ") + spaced(element);
    return "[" + text + "]";
  }
  if (json.is_object()) {
    for (const Json::Member& member : json.object()) text += (text.empty() ? "" : ", ") + Json(member.first).dump() + ": " + spaced(member.second);
    return "{" + text + "}";
  }
  return json.dump();
}

// What comes after the thought, which may speak of calls.
std::string_view act_of(std::string_view step_text) {
  const std::size_t thought = step_text.find("</think>");
  return thought == std::string_view::npos ? step_text : step_text.substr(thought + 8);
}

struct Call {
  std::optional<ToolCall> call;
  std::string problem;  // where there is none
};

Call read_call(std::string_view content) {
  content = trimmed(content);
  ToolCall call;
  if (const std::size_t code = content.find("<code>"); code != std::string_view::npos && content.ends_with("</code>")) {
    call.code = trimmed(content.substr(code + 6, content.size() - 7 - code - 6));
    content = trimmed(content.substr(0, code));
  }
  try {
    Json json = Json::parse(content, "tool call");
    const JsonView view(json, "tool call");
    call.name = view["name"].string();
    if (!view["arguments"].value().is_object()) user_error("tool call: 'arguments' is no object");
    call.arguments = view["arguments"].value();
    for (const Json::Member& member : json.object()) {
      if (member.first != "name" && member.first != "arguments") user_error("tool call: there is no '{}'", member.first);
    }
  } catch (const UserError& error) {
    return {std::nullopt, error.what()};
  }
  return {std::move(call), ""};
}

}  // namespace

ToolSet ToolSet::from_json(const JsonView& json) {
  ToolSet set;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const JsonView tool = json[i].has("function") ? json[i]["function"] : json[i];
    check_schema(tool["parameters"]);
    const std::string& name = tool["name"].string();
    for (const Tool& other : set.tools_) {
      if (other.name == name) user_error("{}: there are two tools '{}'", tool.where(), name);
    }
    set.tools_.push_back({name, tool.has("description") ? tool["description"].string() : "", tool["parameters"].value()});
  }
  if (set.tools_.empty()) user_error("{}: there are no tools", json.where());
  return set;
}

ToolSet ToolSet::built_in() {
  const Json json = Json::parse(kBuiltIn, "built-in tools");
  return from_json(JsonView(json, "built-in tools"));
}

ToolSet ToolSet::from_file(const std::string& path) {
  const Json json = Json::parse_file(path);
  return from_json(JsonView(json, path));
}

std::string ToolSet::text() const {
  std::string text;
  for (const Tool& tool : tools_) {
    text += Json(Json::Object{{"name", tool.name}, {"description", tool.description}, {"parameters", tool.parameters}}).dump() + "\n";
  }
  return text;
}

std::optional<std::string> ToolSet::problem_of(const ToolCall& call) const {
  const auto tool = std::find_if(tools_.begin(), tools_.end(), [&](const Tool& t) { return t.name == call.name; });
  if (tool == tools_.end()) {
    std::vector<std::string> names;
    for (const Tool& t : tools_) names.push_back(t.name);
    return fmt::format("there is no tool '{}'; there are: {}", call.name, fmt::join(names, ", "));
  }
  if (call.code.empty() == (call.name == kPython)) {
    return call.code.empty() ? fmt::format("{}: there is no <code>..</code> after the JSON", call.name) : fmt::format("{} takes no code", call.name);
  }
  return schema_problem(call.arguments, tool->parameters, call.name);
}

std::optional<std::string> structure_problem_of(std::string_view step_text) {
  static constexpr std::array<std::string_view, 3> kTags{"think", "tool_call", "answer"};
  int calls = 0, answers = 0, thoughts = 0;
  std::string_view rest = trimmed(step_text);
  while (!rest.empty()) {
    const auto tag = std::find_if(kTags.begin(), kTags.end(), [&](std::string_view name) { return rest.starts_with(fmt::format("<{}>", name)); });
    if (tag == kTags.end())
      return fmt::format("text outside <think>, <tool_call> and <answer>: \"{}\"", rest.substr(0, rest.find('\n', 0)).substr(0, 40));
    const std::size_t begin = tag->size() + 2, close = rest.find(fmt::format("</{}>", *tag), begin);
    if (close == std::string_view::npos) return fmt::format("<{}> is not closed", *tag);
    const std::string_view content = rest.substr(begin, close - begin);
    for (std::string_view inner :
         {std::string_view("<tool_call>"), std::string_view("</tool_call>"), std::string_view("<answer>"), std::string_view("</answer>")}) {
      if (*tag != "think" && content.find(inner) != std::string_view::npos) return fmt::format("{} inside <{}>", inner, *tag);
    }
    (*tag == "think" ? thoughts : *tag == "answer" ? answers : calls)++;
    if (*tag == "think" && (calls > 0 || answers > 0)) return "<think> after the call or the answer";
    rest = trimmed(rest.substr(close + tag->size() + 3));
  }
  if (thoughts > 1) return fmt::format("{} thoughts", thoughts);
  if (calls + answers == 0) return "neither a call nor an answer";
  if (calls + answers > 1) return fmt::format("{} calls and {} answers, where one of both is right", calls, answers);
  return std::nullopt;
}

std::optional<std::string> ToolSet::problem_of(std::string_view step_text) const {
  if (auto problem = structure_problem_of(step_text)) return problem;
  const std::string_view act = act_of(step_text);
  if (const std::optional<std::string_view> content = inside_tag(act, "tool_call")) {
    const Call call = read_call(*content);
    return call.call ? problem_of(*call.call) : call.problem;
  }
  return inside_tag(act, "answer")->empty() ? std::optional<std::string>("the answer is empty") : std::nullopt;
}

std::optional<std::string_view> inside_tag(std::string_view text, std::string_view tag) {
  const std::string open = fmt::format("<{}>", tag), close = fmt::format("</{}>", tag);
  const std::size_t begin = text.find(open);
  if (begin == std::string_view::npos) return std::nullopt;
  const std::size_t end = text.find(close, begin + open.size());
  if (end == std::string_view::npos) return std::nullopt;
  return trimmed(text.substr(begin + open.size(), end - begin - open.size()));
}

std::optional<ToolCall> tool_call_in(std::string_view step_text) {
  const std::optional<std::string_view> content = inside_tag(act_of(step_text), "tool_call");
  return content ? read_call(*content).call : std::nullopt;
}

std::string tool_call_text(const ToolCall& call) {
  const std::string code = call.code.empty() ? "" : "\n<code>\n" + call.code + "\n</code>";
  return R"(<tool_call>
{"name": )" +
         Json(call.name).dump() + R"(, "arguments": )" + spaced(call.arguments) + "}" + code + "\n</tool_call>";
}

}  // namespace af
