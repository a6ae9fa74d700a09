#include "launch/agent_episode.h"

#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "data/text.h"

namespace af {
namespace {

constexpr const char* kCallEnd = "</tool_call>";
constexpr const char* kAnswerEnd = "</answer>";
constexpr const char* kCodeEnd = "</code>";

// The words of the released trajectories' first message.
std::string chat_question(const ToolSet& tools, const std::string& question) {
  return "A conversation between User and Assistant. The user asks a question, and the assistant solves it by calling one or more of the following "
         "tools.\n<tools>\n" +
         tools.text() +
         "</tools>\n\nThe assistant starts with one or more cycles of (thinking about which tool to use -> performing tool call -> waiting for tool "
         "response), and ends with (thinking about the answer -> answer of the question). The thinking processes, tool calls, tool responses, and "
         "answer are enclosed within their tags.\n\nUser: " +
         question;
}

struct Wording {
  std::string_view header, header_end, decision, decision_end;
};
constexpr Wording kWordings[] = {{"Option ", ":", "I will choose option ", ""}, {"Solution [", "]:", "I choice Solution [", "]"}};

// The number of a line "<before>12<after>"; 0 where it is no such line.
int number_in_line(std::string_view line, std::string_view before, std::string_view after) {
  if (!line.starts_with(before)) return 0;
  line.remove_prefix(before.size());
  int number = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), number);
  return error == std::errc() && line.substr(std::size_t(end - line.data())) == after && number > 0 ? number : 0;
}

// A decision in the last line, which has ended.
struct Decided {
  int number = 0;  // 0: none
  const Wording* wording = nullptr;
  std::size_t line = 0;  // where it begins
};
Decided decision_at_end(std::string_view turn) {
  if (!turn.ends_with('\n')) return {};
  const std::string_view lines = turn.substr(0, turn.size() - 1);
  const std::size_t begin = lines.rfind('\n') + 1;  // npos + 1 = 0
  for (const Wording& wording : kWordings)
    if (const int number = number_in_line(lines.substr(begin), wording.decision, wording.decision_end)) return {number, &wording, begin};
  return {};
}

bool lists_options(std::string_view turn) {
  turn.remove_prefix(std::min(turn.find_first_not_of(" \n"), turn.size()));
  return turn.starts_with("Option ") || turn.starts_with("Solution [") || turn.starts_with("I have ");
}

}  // namespace

const char* name_of(Episode::End end) {
  switch (end) {
    case Episode::End::none: break;
    case Episode::End::answer: return "answer";
    case Episode::End::silent: return "silent";
    case Episode::End::turns: return "turns";
    case Episode::End::length: return "length";
  }
  return "none";
}

std::string chosen_option(std::string_view turn) {
  const Decided decided = decision_at_end(turn);
  std::string step;
  bool inside = false;
  for (std::size_t begin = 0, end; decided.number > 0 && begin < decided.line; begin = end + 1) {
    end = turn.find('\n', begin);
    const std::string_view line = turn.substr(begin, end - begin);
    if (const int number = number_in_line(line, decided.wording->header, decided.wording->header_end)) inside = number == decided.number;
    else if (inside) step.append(line).append("\n");
  }
  return std::string(trimmed(step));
}

Episode::Episode(const AgentSettings& settings, const Tokenizer& tokenizer, const ToolSet& tools, const ToolCaller& call, const std::string& question)
    : settings_(&settings), tokenizer_(&tokenizer), tools_(&tools), call_(&call), encoder_(tokenizer.encoder()) {
  if (settings.format == AgentFormat::chat) {
    if (!settings.system_prompt.empty()) messages_.push_back({"system", settings.system_prompt});
    messages_.push_back({"user", chat_question(tools, question)});
    Document document;
    render_chat(*encoder_, messages_, SpecialTokens::split, document);
    tokens_.assign(document.tokens.begin(), document.tokens.end());
  } else {
    messages_.push_back({"user", question});
    append(question + "\n");
  }
  begin_turn();
}

void Episode::append(std::string_view text) {
  std::vector<std::uint32_t> ids;
  encoder_->encode(text, SpecialTokens::split, ids);
  tokens_.insert(tokens_.end(), ids.begin(), ids.end());
}

void Episode::begin_turn() {
  turn_.clear();
  if (settings_->format == AgentFormat::chat) {
    append_special("<|im_start|>");
    append("assistant\n");
  } else if (settings_->format == AgentFormat::has) {
    turn_ = "Option 1:\n";
    append(turn_);
  }
}

void Episode::write(std::int32_t token) {
  AF_CHECK(end_ == End::none, "an episode that has ended by {} goes on", name_of(end_));
  tokens_.push_back(token);
  ++written_;
  const SpecialTokenFinder& specials = tokenizer_->specials();
  const bool ended = std::any_of(specials.tokens().begin(), specials.tokens().end(), [&](const SpecialToken& s) {
    return std::int32_t(s.id) == token && (s.text == "<|im_end|>" || s.text == "<|endoftext|>");
  });
  const std::size_t before = turn_.size();
  if (!ended) turn_ += tokenizer_->bytes_of(std::uint32_t(token));
  if (turn_is_over(before, ended)) end_turn();
}

bool Episode::turn_is_over(std::size_t from, bool ended_by_model) {
  if (ended_by_model) return true;
  const auto just_written = [&](std::string_view text) { return turn_.find(text, from > text.size() ? from - text.size() : 0) != turn_.npos; };
  for (const std::string& stop : settings_->stop)
    if (just_written(stop)) {
      messages_.push_back({"assistant", turn_});
      finish(End::silent);
      return false;
    }
  if (settings_->format != AgentFormat::chat && lists_options(turn_)) return decision_at_end(turn_).number > 0;
  if (const std::size_t thought = turn_.rfind("<think>"); thought != turn_.npos && turn_.find("</think>", thought) == turn_.npos) return false;
  if (just_written(kAnswerEnd)) return true;
  // A PythonInterpreter's code stands after its call.
  return just_written(kCallEnd) && (turn_.find("PythonInterpreter") == turn_.npos || turn_.find(kCodeEnd) != turn_.npos);
}

std::string Episode::chosen_step() const {
  if (settings_->format == AgentFormat::chat || !lists_options(turn_)) return turn_;
  return chosen_option(turn_);
}

void Episode::end_turn() {
  const std::string step = chosen_step();
  messages_.push_back({"assistant", std::string(trimmed(step))});
  if (const std::size_t at = step.rfind("<answer>"); at != step.npos) {  // the thought before it may speak of others
    if (const auto inside = inside_tag(std::string_view(step).substr(at), "answer")) {
      answer_ = *inside;
      return finish(End::answer);
    }
  }
  if (step.find("<tool_call>") == step.npos) return finish(End::silent);
  if (calls_ == settings_->max_turns) return finish(End::turns);
  ++calls_;
  const std::optional<ToolCall> call = tool_call_in(step);
  const std::optional<std::string> problem = call ? tools_->problem_of(*call) : std::optional<std::string>("it is no JSON object with name and arguments");
  const std::string response = "<tool_response>\n" + (problem ? "Error: the tool call cannot be run: " + *problem : (*call_)(*call)) + "\n</tool_response>";
  messages_.push_back({"user", response});
  if (settings_->format == AgentFormat::chat) {
    if (std::uint32_t(tokens_.back()) != tokenizer_->special_token("<|im_end|>")) append_special("<|im_end|>");
    append("\n");
    append_special("<|im_start|>");
    append("user\n" + response);
    append_special("<|im_end|>");
    append("\n");
  } else {
    append((turn_.ends_with('\n') ? "" : "\n") + response + "\n");
  }
  begin_turn();
}

void Episode::finish(End end) {
  if (end_ == End::none) end_ = end;
}

void Episode::stop_for_length() {
  if (messages_.back().role == "user" && !turn_.empty()) messages_.push_back({"assistant", turn_});
  finish(End::length);
}

}  // namespace af
