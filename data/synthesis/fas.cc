#include "data/synthesis/fas.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/random.h"
#include "data/sha256.h"
#include "data/synthesis/answer_match.h"
#include "data/synthesis/reply.h"

namespace af {
namespace {

const std::vector<std::string> kQuestionReasons{kTeacherFailed,       kTeacherRefused,        "reply cut off", "not readable",
                                                "answer in question", "clues not obfuscated", "asked before"};
const std::vector<std::string> kPlanningReasons{
    "content inconsistency", "search necessity", "logic discontinuity", "invalid tool", kTeacherFailed, kTeacherRefused,
    "reply cut off",         "not readable",     "judge not readable",  "too short",    "too long"};
const std::vector<std::string> kReasoningReasons{"wrong answer", kTeacherFailed,       kTeacherRefused, "reply cut off",
                                                 "not readable", "judge not readable", "too short",     "too long"};

struct Rejected {
  std::string reason, detail, text;
};

}  // namespace

const std::vector<std::string>& fas_styles() {
  static const std::vector<std::string> styles{"factual", "numerical", "multi_hop", "synthesis", "navigation"};
  return styles;
}

std::optional<FasItem> FasItems::next() {
  if (styles_.empty()) {
    std::optional<Knowledge> knowledge = sampler_.next();
    if (!knowledge) return std::nullopt;
    knowledge_ = std::move(*knowledge);
    styles_ = options_.styles;
    const std::uint64_t stream = hash_name("fas.styles") + std::uint64_t(knowledge_.number);
    for (std::size_t i = styles_.size() - 1; i > 0; --i) std::swap(styles_[i], styles_[random_below(options_.seed, stream, i, i + 1)]);
    styles_.resize(std::min(styles_.size(), std::size_t(options_.styles_per_memory)));
  }
  FasItem item{number_++, knowledge_, styles_.back()};
  styles_.pop_back();
  return item;
}

std::string FasSynthesis::ask(const std::string& purpose, const std::string& prompt, const FasItem& item, double temperature) const {
  ChatRequest request;
  request.messages = {{"user", prompt}};
  request.temperature = temperature;
  request.top_p = temperature > 0 ? options_.top_p : 1;
  request.max_tokens = options_.max_tokens;
  request.seed = random_bits(options_.seed, hash_name(purpose), std::uint64_t(item.number));
  request.purpose = purpose;
  ChatReply reply;
  try {
    reply = teacher_.chat(request);
  } catch (const TeacherError& error) {
    if (error.kind == TeacherError::Kind::stopped) throw;
    throw Rejected{error.kind == TeacherError::Kind::refused ? kTeacherRefused : kTeacherFailed, fmt::format("{}: {}", purpose, error.what()), ""};
  }
  if (reply.length_limited) throw Rejected{"reply cut off", fmt::format("{}: after {} tokens", purpose, reply.completion_tokens), reply.text};
  return reply.text;
}

FasSynthesis::Question FasSynthesis::question(const FasItem& item) const {
  const std::string entities = fmt::format("{}", fmt::join(item.knowledge.entities, ", ")), style = prompts_.fill("style_" + item.style, {});
  const std::string reply =
      ask("fas.question", prompts_.fill("fas_question", {{"knowledge", item.knowledge.text}, {"style", style}, {"entities", entities}}), item,
          options_.temperature);
  const std::optional<std::string> text = last_in_tag(reply, "question"), answer = last_in_tag(reply, "answer");
  if (!text || text->empty()) throw Rejected{"not readable", "there is no <question>..</question>", reply};
  if (!answer || answer->empty()) throw Rejected{"not readable", "there is no <answer>..</answer>", reply};
  const std::string words = normalised_answer(*text), right = normalised_answer(*answer);
  if (right.empty()) throw Rejected{"not readable", "the answer has no words", reply};
  const bool closed = right == "yes" || right == "no";
  if (!closed && mentions(words, right)) throw Rejected{"answer in question", *answer, reply};
  const auto named = [&](const std::string& entity) { return mentions(words, normalised_answer(entity)); };
  if (std::all_of(item.knowledge.entities.begin(), item.knowledge.entities.end(), named)) {
    throw Rejected{"clues not obfuscated", fmt::format("it names {}", entities), reply};
  }
  return Question{*text, *answer};
}

void FasSynthesis::check_length(const std::string& thought) const {
  const std::int64_t tokens = length_(thought);
  if (tokens < options_.min_length) throw Rejected{"too short", fmt::format("{} tokens", tokens), thought};
  if (tokens > options_.max_length) throw Rejected{"too long", fmt::format("{} tokens", tokens), thought};
}

std::string FasSynthesis::planning(const FasItem& item, const Question& question) const {
  static const std::vector<std::string> kVerdicts{"keep", "content_inconsistency", "search_necessity", "logic_discontinuity", "invalid_tool"};
  const std::string prompt = prompts_.fill("fas_plan", {{"question", question.text}, {"tools", tools_.text()}});
  const std::string reply = ask("fas.plan", prompt, item, options_.temperature);
  const ReadStep step = step_in(reply, tools_);
  if (!step.problem.empty()) throw Rejected{step.invalid_tool ? "invalid tool" : "not readable", step.problem, reply};
  check_length(step.thought);
  const std::string judged =
      ask("fas.plan_judge",
          prompts_.fill("fas_plan_judge",
                        {{"question", question.text}, {"answer", question.answer}, {"knowledge", item.knowledge.text}, {"step", step.text}}),
          item, 0);
  const std::optional<std::string> verdict = verdict_in(judged, kVerdicts);
  if (!verdict) throw Rejected{"judge not readable", judged, step.text};
  if (*verdict != "keep") {
    std::string reason = *verdict;
    std::replace(reason.begin(), reason.end(), '_', ' ');
    throw Rejected{reason, "the judge", step.text};
  }
  return step.text;
}

bool FasSynthesis::is_right(const FasItem& item, const Question& question, const std::string& candidate) const {
  if (answers_match(candidate, question.answer)) return true;
  if (!options_.answer_judge) return false;
  const std::string prompt = prompts_.fill("answer_judge", {{"question", question.text}, {"answer", question.answer}, {"candidate", candidate}});
  const std::string judged = ask("fas.answer_judge", prompt, item, 0);
  const std::optional<std::string> verdict = verdict_in(judged, {"same", "different"});
  if (!verdict) throw Rejected{"judge not readable", judged, candidate};
  return *verdict == "same";
}

std::string FasSynthesis::reasoning(const FasItem& item, const Question& question) const {
  const std::string attempt = ask("fas.reason_alone", prompts_.fill("fas_reason_alone", {{"question", question.text}}), item, options_.temperature);
  const std::string reply = ask(
      "fas.reason_known", prompts_.fill("fas_reason_known", {{"question", question.text}, {"knowledge", item.knowledge.text}, {"attempt", attempt}}),
      item, options_.temperature);
  const ReadStep step = step_in(reply, tools_);
  if (step.answer.empty()) throw Rejected{"not readable", step.problem.empty() ? "a call, where an answer was asked for" : step.problem, reply};
  if (!step.problem.empty()) throw Rejected{"not readable", step.problem, reply};
  check_length(step.thought);
  if (!is_right(item, question, step.answer)) throw Rejected{"wrong answer", fmt::format("'{}', not '{}'", step.answer, question.answer), step.text};
  return step.text;
}

FasResult FasSynthesis::run(const FasItem& item) const {
  FasResult result;
  const std::string& id = result.id = fmt::format("fas-{:06}", item.number);
  Question asked;
  const auto attempt = [&](const std::string& kind, const std::function<void()>& f) {
    try {
      f();
    } catch (const Rejected& rejected) {
      result.rejects.push_back({id, kind, item.style, rejected.reason, rejected.detail, asked.text, rejected.text});
    }
  };
  attempt("fas_question", [&] {
    asked = question(item);
    result.question = asked.text;
  });
  if (result.question.empty()) return result;
  const auto keep = [&](const std::string& what, const std::string& step) {
    Sample sample{id + "-" + what, "fas_" + what, item.style, item.knowledge.entities, {}, asked.answer, {}, std::nullopt, options_.teacher};
    sample.segments.push_back({Role::user, asked.text + "\n"});
    append_step(sample.segments, step + "\n");
    result.samples.push_back(std::move(sample));
  };
  if (options_.planning) attempt("fas_planning", [&] { keep("planning", planning(item, asked)); });
  if (options_.reasoning) attempt("fas_reasoning", [&] { keep("reasoning", reasoning(item, asked)); });
  return result;
}

FasYields::FasYields()
    : question_("questions", kQuestionReasons), planning_("planning steps", kPlanningReasons), reasoning_("reasoning", kReasoningReasons) {}

Yield& FasYields::of(const std::string& kind) {
  AF_CHECK(kind == "fas_question" || kind == "fas_planning" || kind == "fas_reasoning", "no kind {}", kind);
  return kind == "fas_question" ? question_ : kind == "fas_planning" ? planning_ : reasoning_;
}

void FasYields::add(FasResult& result) {
  if (!result.question.empty()) {
    if (asked_.insert(sha256_hex(normalised_answer(result.question))).second) {
      question_.keep();
    } else {
      const std::string style = !result.samples.empty() ? result.samples[0].style : result.rejects[0].style;
      result.rejects = {{result.id, "fas_question", style, "asked before", "", result.question, ""}};
      result.samples.clear();
    }
  }
  for (const Sample& sample : result.samples) of(sample.kind).keep();
  for (const Reject& reject : result.rejects) of(reject.kind).reject(reject.reason);
}

std::string FasYields::text(bool with_planning, bool with_reasoning) const {
  return question_.text() + (with_planning ? planning_.text() : "") + (with_reasoning ? reasoning_.text() : "");
}

}  // namespace af
