// How facts, subjects and questions are said. Clues are oblique to a degree:
//   0  the relation and the value as they stand: "section mail"
//   1  a phrase with the value: "belongs to the mail section"
//   2  as 1, and an entity in a clue is described by clues of its own: "depends on a package that .."
#pragma once
#include <string>
#include <vector>

#include "data/synthesis/offline_grammar.h"
#include "data/synthesis/offline_question.h"

namespace af {

class Wording {
 public:
  Wording(const QuestionMaker& maker, int obfuscation);

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
  std::string phrase(int fact, const std::string& value, Dice& dice) const;
  const QuestionMaker& maker_;
  const FactIndex& index_;
  int obfuscation_;
  std::string noun_;
  std::vector<std::string> words_, forms_;  // of a relation; forms_: template of its clue with $v
};

// "a", "a and b", "a, b and c"
std::string listed(const std::vector<std::string>& what);

}  // namespace af
