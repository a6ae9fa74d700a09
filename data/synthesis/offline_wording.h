// How facts, subjects and questions are said: obliquely or not. Bare: "has section mail"; else a phrase: "belongs to the section
// mail". An entity that a clue names may be described by clues of its own (QuestionOptions::described_share).
#pragma once
#include <string>
#include <vector>

#include "data/synthesis/offline_grammar.h"
#include "data/synthesis/offline_question.h"

namespace af {

class Wording {
 public:
  enum class Clues { bare, phrases };
  Wording(const FactIndex& index, Clues clues);

  const std::string& noun() const { return noun_; }                          // "package", or "record" where nothing is known of the relations
  const std::string& words(int relation) const { return words_[relation]; }  // "installed size"
  std::string goal(int relation) const;          // what to look for on a page: the words with which statements of the relation are written
  std::string clue(int fact, Dice& dice) const;  // "depends on zlib1g"
  std::string clues(const std::vector<int>& facts, Dice& dice) const;  // "a, b and c"
  std::string subject(const Subject& subject, Dice& dice) const;       // its name, or "the package that a, b and c"
  std::string question(const Question& question, Dice& dice) const;
  std::string query(const std::vector<int>& facts) const;  // the values, as words to search for
  std::string link(int relation, Dice& dice) const;        // "depends on"

 private:
  std::string phrase(int relation, const std::string& value, Dice& dice) const;
  const FactIndex& index_;
  Clues said_;
  std::string noun_;
  std::vector<std::string> words_, forms_;  // of a relation; forms_: template of its clue with $v
};

// "a", "a and b", "a, b and c"
std::string listed(const std::vector<std::string>& what);

}  // namespace af
