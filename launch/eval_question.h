// What an evaluation by likelihood asks of a sample: which of several texts stands at a place of its document.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/synthesis/sample.h"
#include "data/tokenizer.h"

namespace af {

enum class QuestionKind {
  decision,   // of HAS: each option's number in the words of the decision
  option,     // of HAS: each option's own words where the first option stands: which step follows from what came before?
  judgement,  // of HAS: Correct or Incorrect
  answer,     // of FAS: the answer (planning: the first action), against those of other samples
};
const char* name_of(QuestionKind kind);

struct LikelihoodQuestion {
  QuestionKind kind;
  std::int64_t sample = 0;         // its index among all
  int step = 0;                    // decision, option: 0-based
  std::size_t begin = 0, end = 0;  // bytes of text_of(sample) that a candidate takes the place of
  std::vector<std::string> candidates = {};
  int right = 0;  // candidates[right] is what stands there; option: what was chosen
};

// All that can be asked. Decisions and judgements of one option are none. An answer has `distractors` wrong candidates, drawn from the
// other samples of its kind, of its style where there are as many: the same whatever else is evaluated beside them with the same samples.
// UserError where a decision's segment does not name its choice.
std::vector<LikelihoodQuestion> questions_of(std::span<const Sample> samples, int distractors, std::uint64_t seed);

// A document and its questions as tokens: question q asks how likely each of its candidates follows the first `position` tokens.
// Where they differ in one token alone, a candidate is this token.
struct TokenizedQuestion {
  std::int64_t position = 0;
  std::vector<std::vector<std::int32_t>> candidates;  // not empty; different
  bool one_token() const;                             // each candidate is a single token: one look at the position decides
};
struct TokenizedDocument {
  std::vector<std::int32_t> tokens;
  std::vector<TokenizedQuestion> questions;
};
// UserError where nothing stands before a question.
TokenizedDocument tokenize_document(Encoder& encoder, const Sample& sample, std::span<const LikelihoodQuestion> questions);

}  // namespace af
