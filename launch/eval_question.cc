#include "launch/eval_question.h"

#include <algorithm>
#include <map>
#include <optional>

#include "core/error.h"
#include "core/random.h"
#include "data/synthesis/tool_schema.h"

namespace af {
namespace {

struct Place {  // in text_of(sample)
  std::size_t begin, end;
  std::string text;
  std::string after = {};  // up to the segment's end: by which a text says that it is over
};

std::size_t begin_of(const Sample& sample, std::size_t segment) {
  std::size_t at = 0;
  for (std::size_t i = 0; i < segment; ++i) at += sample.segments[i].text.size();
  return at;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Where a decision names its choice: the last number of its text.
std::optional<Place> number_of(const std::string& text) {
  std::size_t end = text.size();
  while (end > 0 && !is_digit(text[end - 1])) --end;
  std::size_t begin = end;
  while (begin > 0 && is_digit(text[begin - 1])) --begin;
  if (begin == end) return std::nullopt;
  return Place{begin, end, text.substr(begin, end - begin)};
}

LikelihoodQuestion decision_question(const Sample& sample, const Decision& decision) {
  const std::string& text = sample.segments[std::size_t(decision.segment)].text;
  const std::optional<Place> number = number_of(text);
  if (!number || number->text != std::to_string(decision.chosen))
    user_error("sample {}: segment {}, \"{}\", does not name option {}, which was chosen", sample.id, decision.segment, text, decision.chosen);
  LikelihoodQuestion question{QuestionKind::decision};
  question.begin = begin_of(sample, std::size_t(decision.segment));
  question.end = question.begin + text.size();
  for (int i = 1; i <= decision.options; ++i)
    question.candidates.push_back(text.substr(0, number->begin) + std::to_string(i) + text.substr(number->end));
  question.right = decision.chosen - 1;
  return question;
}

// The segments before a decision that head its options ("Option 2:\n", "Solution [2]:\n"), in their order; empty where not all are there.
std::vector<std::size_t> headers_of(const Sample& sample, const Decision& decision) {
  std::vector<std::size_t> headers;
  std::size_t at = std::size_t(decision.segment);
  for (int k = decision.options; k >= 1; --k) {
    const std::string words[] = {fmt::format("Option {}:\n", k), fmt::format("Solution [{}]:\n", k)};
    const auto heads = [&](const SampleSegment& s) { return s.role == Role::other && (s.text.ends_with(words[0]) || s.text.ends_with(words[1])); };
    while (at > 0 && !heads(sample.segments[at - 1])) --at;
    if (at == 0) return {};
    headers.insert(headers.begin(), --at);
  }
  return headers;
}

// Each option in the first one's place: what a model that takes no part in the numbering holds for the likeliest step. (Small models know
// what follows long before they can point at it by a number: Robinson et al., "Leveraging large language models for multiple choice
// question answering", 2023, on "cloze" against "multiple choice" prompts.)
std::optional<LikelihoodQuestion> option_question(const Sample& sample, const Decision& decision) {
  std::vector<std::size_t> headers = headers_of(sample, decision);
  if (headers.empty()) return std::nullopt;
  headers.push_back(std::size_t(decision.segment));
  LikelihoodQuestion question{QuestionKind::option};
  for (std::size_t k = 0; k + 1 < headers.size(); ++k) {
    std::string words;
    for (std::size_t i = headers[k] + 1; i < headers[k + 1]; ++i) words += sample.segments[i].text;
    while (words.ends_with('\n')) words.pop_back();  // the next header's, or its own: the tags say where it ends
    if (words.empty()) return std::nullopt;
    question.candidates.push_back(std::move(words));
  }
  question.begin = begin_of(sample, headers[0] + 1);
  question.end = question.begin + question.candidates[0].size();
  question.right = decision.chosen - 1;
  return question;
}

// "My decision is [Correct]\n" against "... [Incorrect]\n".
std::optional<LikelihoodQuestion> judgement_question(const Sample& sample) {
  for (std::size_t i = sample.segments.size(); i-- > 0;) {
    if (sample.segments[i].role != Role::judgement) continue;
    const std::string& text = sample.segments[i].text;
    const std::string words[] = {"Correct", "Incorrect"};
    for (int w : {1, 0}) {
      const std::size_t at = text.rfind(words[w]);
      if (at == text.npos) continue;
      LikelihoodQuestion question{QuestionKind::judgement};
      question.begin = begin_of(sample, i);
      question.end = question.begin + text.size();
      for (const std::string& word : words) question.candidates.push_back(text.substr(0, at) + word + text.substr(at + words[w].size()));
      question.right = w;
      return question;
    }
  }
  return std::nullopt;
}

// What is asked for of a FAS sample: inside <answer> of the last answer, else the last action.
std::optional<Place> asked_of(const Sample& sample) {
  if (sample.kind == "has") return std::nullopt;
  for (Role role : {Role::answer, Role::action}) {
    for (std::size_t i = sample.segments.size(); i-- > 0;) {
      const SampleSegment& segment = sample.segments[i];
      if (segment.role != role) continue;
      const std::size_t begin = begin_of(sample, i);
      if (const auto inside = inside_tag(segment.text, "answer"); role == Role::answer && inside && !inside->empty()) {
        const std::size_t at = begin + std::size_t(inside->data() - segment.text.data());
        const std::size_t rest = std::size_t(inside->data() - segment.text.data()) + inside->size();
        return Place{at, at + inside->size(), std::string(*inside), segment.text.substr(rest)};
      }
      return Place{begin, begin + segment.text.size(), segment.text};
    }
  }
  return std::nullopt;
}

class Distractors {
 public:
  Distractors(std::span<const Sample> samples, int count, std::uint64_t seed) : count_(count), seed_(seed) {
    for (const Sample& sample : samples) {
      places_.push_back(asked_of(sample));
      if (!places_.back()) continue;
      by_style_[sample.kind + "\n" + sample.style].push_back(places_.back()->text);
      by_kind_[sample.kind].push_back(places_.back()->text);
    }
    for (auto* pools : {&by_style_, &by_kind_})
      for (auto& [name, pool] : *pools) {
        std::sort(pool.begin(), pool.end());
        pool.erase(std::unique(pool.begin(), pool.end()), pool.end());
      }
  }
  std::optional<LikelihoodQuestion> question(const Sample& sample, std::size_t index) const {
    const std::optional<Place>& place = places_[index];
    if (!place || count_ < 1) return std::nullopt;
    const std::vector<std::string>& same_style = by_style_.at(sample.kind + "\n" + sample.style);
    const std::vector<std::string>& pool = int(same_style.size()) > count_ ? same_style : by_kind_.at(sample.kind);
    if (int(pool.size()) <= count_) return std::nullopt;
    LikelihoodQuestion question{QuestionKind::answer};
    question.begin = place->begin, question.end = place->end;
    const std::uint64_t stream = hash_name(sample.id);
    for (std::uint64_t i = 0; int(question.candidates.size()) < count_; ++i) {
      const std::string& other = pool[random_below(seed_, stream, i, pool.size())];
      if (other != place->text && std::find(question.candidates.begin(), question.candidates.end(), other) == question.candidates.end())
        question.candidates.push_back(other);
    }
    question.right = int(random_below(seed_ + 1, stream, 0, std::uint64_t(count_) + 1));
    question.candidates.insert(question.candidates.begin() + question.right, place->text);
    question.end += place->after.size();
    for (std::string& candidate : question.candidates) candidate += place->after;
    return question;
  }

 private:
  int count_;
  std::uint64_t seed_;
  std::vector<std::optional<Place>> places_;
  std::map<std::string, std::vector<std::string>> by_style_, by_kind_;
};

}  // namespace

const char* name_of(QuestionKind kind) {
  switch (kind) {
    case QuestionKind::decision: return "decision";
    case QuestionKind::option: return "option";
    case QuestionKind::judgement: return "judgement";
    case QuestionKind::answer: break;
  }
  return "answer";
}

std::vector<LikelihoodQuestion> questions_of(std::span<const Sample> samples, int distractors, std::uint64_t seed) {
  const Distractors others(samples, distractors, seed);
  std::vector<LikelihoodQuestion> questions;
  const auto add = [&](std::size_t sample, LikelihoodQuestion question) {
    question.sample = std::int64_t(sample);
    questions.push_back(std::move(question));
  };
  for (std::size_t i = 0; i < samples.size(); ++i) {
    int step = 0;
    for (const Decision& decision : samples[i].decisions) {
      LikelihoodQuestion question = decision_question(samples[i], decision);
      std::optional<LikelihoodQuestion> option = option_question(samples[i], decision);
      question.step = step++;
      if (decision.options < 2) continue;
      if (option) option->step = question.step;
      add(i, std::move(question));
      if (option) add(i, std::move(*option));
    }
    if (std::optional<LikelihoodQuestion> question = judgement_question(samples[i])) add(i, std::move(*question));
    if (std::optional<LikelihoodQuestion> question = others.question(samples[i], i)) add(i, std::move(*question));
  }
  return questions;
}

}  // namespace af
