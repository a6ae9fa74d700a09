// First-order action synthesis without a teacher: questions with their analysis and first action (planning), and with a guess
// and the chain that mends it (reasoning), from the facts of a memory. Every answer is the result of set operations.
#pragma once
#include <functional>
#include <optional>

#include "data/synthesis/offline_question.h"
#include "data/synthesis/offline_wording.h"
#include "data/synthesis/sample.h"

namespace af {

using PageUrl = std::function<std::string(int entity)>;  // by which visit() finds the entity's page

class OfflinePlanner {
 public:
  OfflinePlanner(const QuestionMaker& maker, const Wording& wording, PageUrl page_url);

  // What the sample with this question says; `id` is left to the caller.
  Sample planning(const Question& question, Dice& dice) const;
  std::optional<Sample> reasoning(const Question& question,
                                  Dice& dice) const;  // nullopt for the operations that need more than knowledge of one chain

 private:
  std::string analysis(const Question& question, Dice& dice) const;
  std::string first_call(const Question& question, Dice& dice) const;
  const QuestionMaker& maker_;
  const FactIndex& index_;
  const Wording& wording_;
  PageUrl page_url_;
};

}  // namespace af
