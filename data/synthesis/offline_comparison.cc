// Trajectories that visit two pages at once: to compare or add their numbers, or to find what they have in common.
#include <array>
#include <unordered_set>

#include "data/synthesis/offline_trajectory.h"

namespace af {
namespace {

constexpr int kTries = 8;

}  // namespace

// visit two pages at once, compare or add.
std::optional<TrajectoryMaker::Draft> TrajectoryMaker::pair(Dice& dice, const WorldAccess& world) const {
  const std::vector<Subject> group = maker_.siblings(
      std::max(3, dice.between(options_.least_options, options_.most_options)), maker_.random_entity(dice), [](int) { return true; }, dice);
  if (group.empty()) return std::nullopt;
  std::vector<int> usable;
  for (const int r : maker_.asks(group[0].entity, true)) {
    std::unordered_set<int> facts;
    for (const Subject& s : group) {
      const int fact = index_.only(s.entity, r);
      if (fact >= 0) facts.insert(fact);
    }
    if (facts.size() == group.size()) usable.push_back(r);
  }
  if (usable.empty()) return std::nullopt;
  const int ask = dice.pick(usable);
  const Computation operation = dice.pick(std::array{Computation::larger, Computation::smaller, Computation::sum});
  const auto number = [&](int i) { return *index_.number(index_.only(group[std::size_t(i)].entity, ask)); };

  std::vector<std::pair<int, int>> pairs;
  for (int i = 0; i < int(group.size()); ++i) {
    for (int j = i + 1; j < int(group.size()); ++j) pairs.push_back(dice.chance(0.5) ? std::pair{i, j} : std::pair{j, i});
  }
  const auto result = [&](int p) {  // index of the candidate answer
    const auto [i, j] = pairs[std::size_t(p)];
    return operation == Computation::sum ? p : (number(i) > number(j)) == (operation == Computation::larger) ? i : j;
  };
  std::vector<std::string> answers;
  if (operation == Computation::sum) {
    for (const auto& [i, j] : pairs) answers.push_back(std::to_string(number(i) + number(j)));
    if (std::unordered_set<std::string>(answers.begin(), answers.end()).size() < answers.size()) return std::nullopt;
  } else {
    for (const Subject& s : group) answers.push_back(index_.name(s.entity));
  }
  const int right = int(dice.below(pairs.size()));
  int taken = right, given = result(right);
  const bool failed = dice.chance(options_.failed_share);
  if (failed && dice.chance(0.5)) {
    taken = int(dice.other_than(pairs.size(), std::size_t(right)));
    given = result(taken);
    if (given == result(right)) return std::nullopt;
  } else if (failed) {
    const auto [i, j] = pairs[std::size_t(right)];
    given = operation == Computation::sum ? int(dice.other_than(pairs.size(), std::size_t(right))) : given == i ? j : i;
  }
  Draft draft;
  draft.right = !failed;
  const auto subject = [&](int i) { return Subject{group[std::size_t(i)].entity, {}}; };
  draft.question = {
      Style::numerical, operation, {subject(pairs[std::size_t(right)].first), subject(pairs[std::size_t(right)].second)}, {}, -1, ask, -1, {}};
  draft.question.target = draft.question.subjects[0].entity;
  draft.question.answer = answers[std::size_t(result(right))];
  Step look{{}, right, taken};
  for (const auto& [i, j] : pairs)
    look.candidates.push_back(visit({group[std::size_t(i)].entity, group[std::size_t(j)].entity}, wording_.goal(ask), dice, world));
  const auto [i, j] = pairs[std::size_t(taken)];
  look.needed = {std::to_string(number(i)), std::to_string(number(j))};
  draft.steps.push_back(std::move(look));
  Step say{{}, result(taken), given};
  if (operation != Computation::sum) say.shown = {i, j};
  const std::string what = operation == Computation::sum ? "sum" : operation == Computation::larger ? "larger one" : "smaller one";
  for (const std::string& value : answers) say.candidates.push_back(answer(what, value, dice));
  draft.steps.push_back(std::move(say));
  return draft;
}

// visit a hub with several values and one of the entities that share just one of them each; say which.
std::optional<TrajectoryMaker::Draft> TrajectoryMaker::star(Dice& dice, const WorldAccess& world) const {
  const int hub = maker_.random_entity(dice);
  std::vector<int> relations;
  for (const int fact : index_.facts_of(hub)) {
    const int r = index_.relation_of(fact);
    if ((relations.empty() || relations.back() != r) && index_.facts_of(hub, r).size() >= 2) relations.push_back(r);
  }
  if (relations.empty()) return std::nullopt;
  const int ask = dice.pick(relations);
  const auto held = index_.facts_of(hub, ask);
  std::vector<int> values, leaves, facts(held.begin(), held.end());
  dice.shuffle(facts);
  const std::size_t most = std::size_t(dice.between(options_.least_options, options_.most_options));
  for (const int fact : facts) {
    if (!maker_.clue(fact) || values.size() == most) continue;
    for (int tries = 0; tries < kTries; ++tries) {
      const int leaf = dice.pick(index_.entities_of(fact));
      if (leaf == hub || !maker_.in_split(leaf) || std::find(leaves.begin(), leaves.end(), leaf) != leaves.end()) continue;
      const auto common = std::count_if(held.begin(), held.end(), [&](int f) { return index_.has(leaf, f); });
      if (common != 1) continue;
      values.push_back(fact), leaves.push_back(leaf);
      break;
    }
  }
  if (values.size() < 2) return std::nullopt;
  const std::size_t right = dice.below(values.size());
  std::size_t taken = right, given = right;
  const bool failed = dice.chance(options_.failed_share);
  if (failed) {
    given = dice.other_than(values.size(), right);
    if (dice.chance(0.5)) taken = given;
  }
  Draft draft;
  draft.right = !failed;
  const bool hub_first = dice.chance(0.5);
  const auto both = [&](int leaf) { return hub_first ? std::vector<int>{hub, leaf} : std::vector<int>{leaf, hub}; };
  const std::vector<int> named = both(leaves[right]);
  draft.question = {Style::synthesis, Computation::common, {{named[0], {}}, {named[1], {}}}, {}, -1, ask, leaves[right], index_.value(values[right])};
  Step look{{}, int(right), int(taken)}, say{{}, int(taken), int(given)};
  for (std::size_t i = 0; i < values.size(); ++i) {
    look.candidates.push_back(visit(both(leaves[i]), wording_.goal(ask), dice, world));
    say.candidates.push_back(answer(wording_.words(ask), index_.value(values[i]), dice));
  }
  look.needed = {index_.value(values[taken])};
  draft.steps.push_back(std::move(look)), draft.steps.push_back(std::move(say));
  return draft;
}

}  // namespace af
