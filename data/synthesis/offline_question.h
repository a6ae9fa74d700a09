// Questions over facts. A subject is an entity named by clues, a set of facts that is unique (no other entity has them all)
// and minimal (without any of them it is not); a question asks for the result of set operations on one or two subjects.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/synthesis/offline_dice.h"
#include "data/synthesis/offline_facts.h"

namespace af {

enum class Split { all, train, heldout };
enum class Style { factual, numerical, multi_hop, synthesis, navigation };
inline constexpr const char* kStyleNames[] = {"factual", "numerical", "multi_hop", "synthesis", "navigation"};
inline constexpr int kStyles = 5;

struct Subject {
  int entity = -1;
  std::vector<int> clues = {};               // facts; empty: the entity is named outright
  std::vector<std::vector<int>> inner = {};  // of each clue: the clues by which the entity is described that it names; empty: named
};

enum class Computation {
  value,  // of the relation `ask` of the subject, or of what its relation `link` names
  count,  // entities that have all of `facts`
  larger,
  smaller,   // which subject has the larger, or smaller, number in `ask`
  sum,       // of the subjects' numbers in `ask`
  common,    // the one value of `ask` that both subjects have
  referrer,  // value of `ask` of the one entity whose `link` names the subject and that has all of `facts`
};

struct Question {
  Style style = Style::factual;
  Computation operation = Computation::value;
  std::vector<Subject> subjects = {};
  std::vector<int> facts = {};
  int link = -1, ask = -1;  // relations
  int target = -1;          // the entity that the split goes by: the last one of the chain
  std::string answer = {};
};

struct QuestionOptions {
  Split split = Split::all;
  double heldout_share = 0.1;  // of the entities, by a hash of their names
  int least_clues = 2, most_clues = 3;
  double described_share = 0;  // of the entities that clues of make() name: described by clues of their own instead
  std::string memory = "the memory";  // its name, for messages
};

class QuestionMaker {
 public:
  // UserError where the facts allow no questions.
  QuestionMaker(const FactIndex& index, const QuestionOptions& options);
  const FactIndex& index() const { return index_; }

  bool in_split(int entity) const;
  bool clue(int fact) const { return clue_[fact]; }                    // says something, of at least two entities, in few words
  bool askable(int relation) const { return askable_[relation]; }      // its value cannot be guessed: no value stands in half of its facts
  const std::vector<int>& links() const { return links_; }             // relations whose values are mostly entities
  int random_entity(Dice& dice) const;                                 // of the split, with a clue
  int random_link(int entity, Dice& dice) const;                       // a relation with just one value, an entity of the index; -1: none
  std::vector<int> asks(int entity, bool numeric_only = false) const;  // askable relations of which it has just one value

  // `least` to `most` clues of which `anchors` are some; nullopt where none was found within a few tries.
  std::optional<std::vector<int>> identify(int entity, const std::vector<int>& anchors, Dice& dice) const;

  // Exchangeable subjects: drawn from the entities that share one or two clues with `like`, all of them in the split, `fit`, and
  // identified by these clues and others. Which of them the question will be about is not known yet. Empty where there are
  // fewer than `n`; `like` need not be one of them.
  std::vector<Subject> siblings(int n, int like, const std::function<bool(int entity)>& fit, Dice& dice) const;

  // A question of the style that begins with the entity, and its answer; nullopt where chance led to none.
  std::optional<Question> make(Style style, int entity, Dice& dice) const;

 private:
  bool minimal(const std::vector<int>& facts) const;
  void describe(Subject& subject, Dice& dice) const;
  std::optional<Question> factual(int entity, Dice& dice) const;
  std::optional<Question> numerical(int entity, Dice& dice) const;
  std::optional<Question> multi_hop(int entity, Dice& dice) const;
  std::optional<Question> synthesis(int entity, Dice& dice) const;
  std::optional<Question> navigation(int entity, Dice& dice) const;

  const FactIndex& index_;
  QuestionOptions options_;
  std::vector<bool> clue_, askable_;
  std::vector<int> links_, entities_;
};

}  // namespace af
