#include "data/synthesis/trajectory_reader.h"

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "data/chat.h"
#include "data/json.h"
#include "data/synthesis/answer_match.h"
#include "data/synthesis/tool_schema.h"
#include "data/text.h"
#include "data/utf8.h"

namespace af {
namespace {

std::int64_t count_of(std::string_view text, std::string_view part) {
  std::int64_t count = 0;
  for (std::size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

void check_pairs(std::string_view text, const std::string& where) {
  for (const char* tag : {"think", "tool_call", "answer"}) {
    const std::int64_t open = count_of(text, fmt::format("<{}>", tag)), close = count_of(text, fmt::format("</{}>", tag));
    if (open != close) user_error("{}: {} <{}> and {} </{}>; they come in pairs", where, open, tag, close, tag);
  }
}

bool is_response(const Message& message) {
  return message.role == "tool" || (message.role == "user" && trimmed(message.content).starts_with("<tool_response>"));
}

std::string question_of(std::string_view message) {
  const std::size_t tools = message.rfind("</tools>");
  if (tools != std::string_view::npos) {
    const std::size_t user = message.rfind("\nUser:");
    if (user != std::string_view::npos && user > tools) message = message.substr(user + 6);
  }
  return std::string(trimmed(message));
}

void add_answers(const JsonView& json, std::vector<std::string>& answers) {
  if (json.value().is_array()) {
    for (std::size_t i = 0; i < json.size(); ++i) add_answers(json[i], answers);
  } else {
    answers.push_back(json.string());
  }
}

bool given_outcome(const JsonView& json) {
  const Json& value = json.value();
  if (value.is_integer() && (value.integer() == 0 || value.integer() == 1)) return value.integer() == 1;
  if (!value.is_boolean()) user_error("{}: expected true, false, 1 or 0, found {}", json.where(), value.describe());
  return value.boolean();
}

bool matched_outcome(const Trajectory& trajectory) {
  const std::string& last = trajectory.steps.back().content;
  const std::size_t begin = last.rfind("<answer>");  // the thought before it may speak of others
  const std::optional<std::string_view> answer =
      begin == std::string::npos ? std::nullopt : inside_tag(std::string_view(last).substr(begin), "answer");
  if (!answer) return false;
  if (answers_match(*answer, trajectory.answer, trajectory.other_answers)) return true;
  const std::string said = normalised_answer(*answer);  // a sentence that holds the answer is as good
  const auto mentioned = [&](const std::string& right) { return mentions(said, normalised_answer(right)); };
  return mentioned(trajectory.answer) || std::any_of(trajectory.other_answers.begin(), trajectory.other_answers.end(), mentioned);
}

}  // namespace

Trajectory trajectory_from(const JsonView& line, OutcomeFrom outcome) {
  Trajectory trajectory;
  trajectory.id = line.where();
  if (line.has("id")) trajectory.id = line["id"].value().is_integer() ? fmt::format("{}", line["id"].integer()) : line["id"].string();
  const std::vector<Message> messages = messages_from(line["messages"]);
  bool asked = false;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const Message& message = messages[i];
    const std::string where = fmt::format("{}[{}]", line["messages"].where(), i);
    const bool waits = !trajectory.steps.empty() && !trajectory.steps.back().response;  // the last step, for its response
    if (message.role == "system") {
      if (asked) user_error("{}: a system message after the question", where);
    } else if (!asked) {
      if (message.role != "user" || is_response(message)) user_error("{}: expected the question (role user), found {}", where, message.role);
      trajectory.question = question_of(message.content);
      if (trajectory.question.empty()) user_error("{}: the question is empty", where);
      asked = true;
    } else if (message.role == "assistant") {
      if (waits) user_error("{}: two steps without a response between them", where);
      check_pairs(message.content, where);
      if (message.content.empty()) user_error("{}: the step is empty", where);
      trajectory.steps.push_back({message.content, std::nullopt});
    } else if (!is_response(message)) {
      user_error("{}: a second question; a trajectory has one (responses begin with <tool_response>)", where);
    } else {
      if (!waits) user_error("{}: a response without a step", where);
      trajectory.steps.back().response = message.content;
    }
  }
  if (trajectory.steps.empty()) user_error("{}: there is no step (role assistant)", line["messages"].where());
  std::vector<std::string> answers;
  if (line.has("answer") && !line["answer"].value().is_null()) add_answers(line["answer"], answers);
  if (!answers.empty()) {
    trajectory.answer = answers[0];
    trajectory.other_answers.assign(answers.begin() + 1, answers.end());
  }
  if (outcome == OutcomeFrom::given || (outcome == OutcomeFrom::either && line.has("outcome"))) {
    trajectory.outcome = given_outcome(line["outcome"]);
  } else {
    if (answers.empty()) user_error("{}: there is neither 'outcome' nor an 'answer' to judge by", line.where());
    if (std::all_of(answers.begin(), answers.end(), [](const std::string& right) { return normalised_answer(right).empty(); }))
      user_error("{}: 'answer' has no words to judge by, and there is no 'outcome'", line.where());
    trajectory.outcome = matched_outcome(trajectory);
  }
  return trajectory;
}

TrajectoryReader::TrajectoryReader(std::span<const TextSource> sources, OutcomeFrom outcome, std::int64_t max_line_bytes, Problem problem)
    : sources_(sources), outcome_(outcome), max_line_bytes_(max_line_bytes), problem_(std::move(problem)) {
  for (const TextSource& source : sources) all_bytes_ += source.stamp.bytes;
}

double TrajectoryReader::fraction() const {
  if (all_bytes_ == 0) return 1;
  return double(finished_bytes_ + (reader_ ? block_.file_bytes : 0)) / double(all_bytes_);
}

void TrajectoryReader::tell(const std::string& what) {
  constexpr std::size_t kMostBytes = 400;  // the parser quotes what it has read, which may be all of the line
  ++skipped_;
  problem_(printable(what.substr(0, kMostBytes)) + (what.size() > kMostBytes ? "..." : ""));
}

bool TrajectoryReader::next_line(std::string_view& line, std::int64_t& number) {
  const auto tell_before = [&](std::int64_t last) {
    for (; reported_ < block_.problems.size() && block_.problems[reported_].line <= last; ++reported_) {
      const LineProblem& problem = block_.problems[reported_];
      tell(fmt::format("{}:{}: {}", sources_[source_].name, problem.line, problem.what));
    }
  };
  for (;;) {
    if (!rest_.empty()) {
      const std::size_t end = std::min(rest_.find('\n'), rest_.size());
      line = rest_.substr(0, end);
      rest_.remove_prefix(std::min(end + 1, rest_.size()));
      number = line_++;
      tell_before(number);
      if (line.find_first_not_of(" \t\r") != std::string_view::npos) return true;
      continue;
    }
    tell_before(INT64_MAX);
    if (reader_ && block_.last) {
      finished_bytes_ += block_.file_bytes;
      reader_.reset();
      block_ = {};
      reported_ = 0;
      ++source_;
    }
    if (!reader_) {
      if (source_ == sources_.size()) return false;
      reader_ = std::make_unique<BlockReader>(sources_[source_], std::int64_t(source_), max_line_bytes_);
    }
    reader_->next(block_);
    rest_ = block_.text, line_ = block_.first_line, reported_ = 0;
  }
}

bool TrajectoryReader::next(Trajectory& trajectory) {
  std::string_view line;
  std::int64_t number = 0;
  while (next_line(line, number)) {
    const std::string& name = sources_[source_].name;
    try {
      const Json json = Json::parse(line, name, number);
      trajectory = trajectory_from(JsonView(json, fmt::format("{}:{}", name, number)), outcome_);
      if (!json.find("id")) trajectory.id = fmt::format("{}:{}", std::filesystem::path(name).filename().string(), number);
      return true;
    } catch (const UserError& error) {
      tell(error.what());
    }
  }
  return false;
}

}  // namespace af
