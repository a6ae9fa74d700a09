#include "data/synthesis/offline_question.h"

#include <array>

#include "core/error.h"
#include "core/random.h"

namespace af {
namespace {

constexpr std::size_t kLongestClue = 40, kLongestAnswer = 80;
constexpr double kCommonest = 0.2;  // a fact of more entities than this share is no clue
constexpr int kTries = 6;

}  // namespace

QuestionMaker::QuestionMaker(const FactIndex& index, const QuestionOptions& options) : index_(index), options_(options) {
  askable_.resize(index.relations()), clue_.resize(index.facts());
  std::vector<std::size_t> commonest(index.relations());
  for (int fact = 0; fact < index.facts(); ++fact) {
    std::size_t& most = commonest[index.relation_of(fact)];
    most = std::max(most, index.entities_of(fact).size());
  }
  for (int r = 0; r < index.relations(); ++r) {
    const Relation& relation = index.relation(r);
    askable_[r] = relation.values >= 2 && std::int64_t(commonest[r]) * 2 <= relation.facts;
    if (relation.link()) links_.push_back(r);
  }
  for (int fact = 0; fact < index.facts(); ++fact) {
    const Relation& relation = index.relation(index.relation_of(fact));
    const std::size_t entities = index.entities_of(fact).size();
    clue_[fact] = !relation.numeric() && relation.facts >= 2 * relation.values && entities >= 2 &&
                  double(entities) <= kCommonest * index.entities() && index.value(fact).size() <= kLongestClue;
  }
  for (int e = 0; e < index.entities(); ++e) {
    const auto facts = index.facts_of(e);
    if (in_split(e) && std::any_of(facts.begin(), facts.end(), [&](int fact) { return clue(fact); })) entities_.push_back(e);
  }
  if (!entities_.empty()) return;
  if (index.facts() == 0)
    user_error("{}: has no facts (relation and value), only statements; questions without a teacher are made of facts, which 'af_synth memory --triples' "
               "and '--debian-index' give. A teacher (--endpoint) asks about any memory", options_.memory);
  int shared = 0;
  for (int fact = 0; fact < index.facts(); ++fact) shared += index.entities_of(fact).size() >= 2;
  user_error("{}: {} of its {} facts are shared by entities, too few to name entities by; questions without a teacher need relations whose values come "
             "back, as a package index or a knowledge graph has. A teacher (--endpoint) asks about any memory", options_.memory, shared, index.facts());
}

bool QuestionMaker::in_split(int entity) const {
  if (options_.split == Split::all) return true;
  const std::uint64_t hash = hash_name(index_.name(entity));
  const double place = random_uniform(hash, 0, 0);
  return (place < options_.heldout_share) == (options_.split == Split::heldout);
}

int QuestionMaker::random_entity(Dice& dice) const { return dice.pick(entities_); }

int QuestionMaker::random_link(int entity, Dice& dice) const {
  std::vector<int> usable;
  for (const int link : links_) {
    const int fact = index_.only(entity, link);
    if (fact >= 0 && index_.linked(fact) >= 0 && index_.linked(fact) != entity) usable.push_back(link);
  }
  return usable.empty() ? -1 : dice.pick(usable);
}

std::vector<int> QuestionMaker::asks(int entity, bool numeric_only) const {
  std::vector<int> found;
  for (int r = 0; r < index_.relations(); ++r) {
    if (!askable(r) || (numeric_only && !index_.relation(r).numeric())) continue;
    const int fact = index_.only(entity, r);
    if (fact >= 0 && index_.value(fact).size() <= kLongestAnswer) found.push_back(r);
  }
  return found;
}

bool QuestionMaker::minimal(const std::vector<int>& facts) const {
  if (facts.size() == 1) return true;
  for (std::size_t leave = 0; leave < facts.size(); ++leave) {
    std::vector<int> others;
    for (std::size_t i = 0; i < facts.size(); ++i) {
      if (i != leave) others.push_back(facts[i]);
    }
    if (index_.intersect(others, 2).size() < 2) return false;
  }
  return true;
}

std::optional<std::vector<int>> QuestionMaker::identify(int entity, const std::vector<int>& anchors, Dice& dice) const {
  std::vector<int> others;
  for (const int fact : index_.facts_of(entity)) {
    if (clue(fact) && std::find(anchors.begin(), anchors.end(), fact) == anchors.end()) others.push_back(fact);
  }
  for (int attempt = 0; attempt < kTries; ++attempt) {
    dice.shuffle(others);
    std::vector<int> clues = anchors;
    for (const int fact : others) {
      if (int(clues.size()) == options_.most_clues) break;
      clues.push_back(fact);
      if (int(clues.size()) < options_.least_clues || index_.intersect(clues, 2).size() > 1) continue;
      if (minimal(clues)) return clues;
      break;
    }
  }
  return std::nullopt;
}

std::vector<Subject> QuestionMaker::siblings(int n, int like, const std::function<bool(int)>& fit, Dice& dice) const {
  std::vector<int> anchors;
  for (const int fact : index_.facts_of(like)) {
    if (clue(fact)) anchors.push_back(fact);
  }
  dice.shuffle(anchors);
  anchors.resize(std::min<std::size_t>(anchors.size(), options_.most_clues > 2 ? 1 + dice.below(2) : 1));
  std::vector<int> pool = index_.intersect(anchors, std::size_t(-1));
  std::vector<Subject> found;
  for (int tries = 20 * n; tries > 0 && !pool.empty() && int(found.size()) < n; --tries) {
    std::swap(pool[dice.below(pool.size())], pool.back());
    const int entity = pool.back();
    pool.pop_back();
    if (!in_split(entity) || !fit(entity)) continue;
    if (auto clues = identify(entity, anchors, dice)) dice.shuffle(*clues), found.push_back({entity, std::move(*clues)});
  }
  if (int(found.size()) < n) found.clear();
  return found;
}

std::optional<Question> QuestionMaker::make(Style style, int entity, Dice& dice) const {
  std::optional<Question> question;
  switch (style) {
    case Style::factual:
      question = factual(entity, dice);
      break;
    case Style::numerical:
      question = numerical(entity, dice);
      break;
    case Style::multi_hop:
      question = multi_hop(entity, dice);
      break;
    case Style::synthesis:
      question = synthesis(entity, dice);
      break;
    case Style::navigation:
      question = navigation(entity, dice);
      break;
  }
  if (question) {
    question->style = style;
    if (!in_split(question->target)) return std::nullopt;
    for (Subject& subject : question->subjects) {
      if (!in_split(subject.entity)) return std::nullopt;
      describe(subject, dice);
    }
  }
  return question;
}

void QuestionMaker::describe(Subject& subject, Dice& dice) const {
  if (options_.described_share == 0) return;
  for (const int clue : subject.clues) {
    subject.inner.emplace_back();
    const int named = index_.linked(clue);
    if (named < 0 || named == subject.entity || !dice.chance(options_.described_share)) continue;
    if (auto clues = identify(named, {}, dice)) subject.inner.back() = std::move(*clues);
  }
}

std::optional<Question> QuestionMaker::factual(int entity, Dice& dice) const {
  auto clues = identify(entity, {}, dice);
  std::vector<int> asked = asks(entity);
  if (!clues) return std::nullopt;
  std::erase_if(asked, [&](int r) { return std::any_of(clues->begin(), clues->end(), [&](int fact) { return index_.relation_of(fact) == r; }); });
  if (asked.empty()) return std::nullopt;
  const int ask = dice.pick(asked);
  return Question{.subjects = {{entity, std::move(*clues)}}, .ask = ask, .target = entity, .answer = index_.value(index_.only(entity, ask))};
}

std::optional<Question> QuestionMaker::numerical(int entity, Dice& dice) const {
  if (dice.chance(0.5)) {  // how many have all of these
    std::vector<int> facts;
    for (const int fact : index_.facts_of(entity)) {
      if (clue(fact)) facts.push_back(fact);
    }
    dice.shuffle(facts);
    for (std::size_t n = 1; n <= std::min<std::size_t>(facts.size(), 3); ++n) {
      const std::span<const int> chosen(facts.data(), n);
      const std::size_t count = index_.intersect(chosen, 16).size();
      if (count < 2) return std::nullopt;
      if (count > 15) continue;
      if (n > 1 && index_.intersect(chosen.first(n - 1), 16).size() == count) return std::nullopt;  // the last clue says nothing
      return Question{.operation = Computation::count, .facts = {chosen.begin(), chosen.end()}, .target = entity, .answer = std::to_string(count)};
    }
    return std::nullopt;
  }
  const std::vector<int> asked = asks(entity, true);
  auto clues = identify(entity, {}, dice);
  if (asked.empty() || !clues) return std::nullopt;
  const int ask = dice.pick(asked), other = random_entity(dice);
  const int a = index_.only(entity, ask), b = index_.only(other, ask);
  if (other == entity || b < 0 || a == b) return std::nullopt;
  auto other_clues = dice.chance(0.5) ? std::optional(std::vector<int>{}) : identify(other, {}, dice);
  if (!other_clues) return std::nullopt;
  Question question{.subjects = {{entity, std::move(*clues)}, {other, std::move(*other_clues)}}, .ask = ask, .target = entity};
  const std::int64_t x = *index_.number(a), y = *index_.number(b);
  question.operation = dice.pick(std::array{Computation::larger, Computation::smaller, Computation::sum});
  const bool larger = question.operation == Computation::larger;
  question.answer = question.operation == Computation::sum ? std::to_string(x + y) : index_.name((x > y) == larger ? entity : other);
  if (dice.chance(0.5)) std::swap(question.subjects[0], question.subjects[1]);
  return question;
}

std::optional<Question> QuestionMaker::multi_hop(int entity, Dice& dice) const {
  auto clues = identify(entity, {}, dice);
  if (!clues) return std::nullopt;
  if (dice.chance(0.5)) {  // the entity's link leads to what is asked about
    const int link = random_link(entity, dice);
    if (link < 0 || index_.relation_of(clues->front()) == link) return std::nullopt;
    const int next = index_.linked(index_.only(entity, link));
    const std::vector<int> asked = asks(next);
    if (asked.empty()) return std::nullopt;
    const int ask = dice.pick(asked);
    return Question{
        .subjects = {{entity, std::move(*clues)}}, .link = link, .ask = ask, .target = next, .answer = index_.value(index_.only(next, ask))};
  }
  // the entity is a clue of what is asked about: "the package that recommends it and is in section x"
  std::vector<int> naming;
  for (const int fact : index_.facts_naming(entity)) {
    if (clue(fact) && index_.relation(index_.relation_of(fact)).link()) naming.push_back(fact);
  }
  if (naming.empty()) return std::nullopt;
  const int fact = dice.pick(naming), link = index_.relation_of(fact);
  const int next = dice.pick(index_.entities_of(fact));
  auto facts = identify(next, {fact}, dice);
  std::vector<int> asked = asks(next);
  if (!facts || asked.empty()) return std::nullopt;
  std::erase_if(asked, [&](int r) { return std::any_of(facts->begin(), facts->end(), [&](int f) { return index_.relation_of(f) == r; }); });
  if (asked.empty()) return std::nullopt;
  facts->erase(facts->begin());
  const int ask = dice.pick(asked);
  return Question{.operation = Computation::referrer,
                  .subjects = {{entity, std::move(*clues)}},
                  .facts = std::move(*facts),
                  .link = link,
                  .ask = ask,
                  .target = next,
                  .answer = index_.value(index_.only(next, ask))};
}

std::optional<Question> QuestionMaker::synthesis(int entity, Dice& dice) const {
  std::vector<int> shared;
  for (const int fact : index_.facts_of(entity)) {
    if (clue(fact) && index_.entities_of(fact).size() <= 2000) shared.push_back(fact);
  }
  if (shared.empty()) return std::nullopt;
  const int fact = dice.pick(shared), relation = index_.relation_of(fact);
  const int other = dice.pick(index_.entities_of(fact));
  if (other == entity) return std::nullopt;
  int common = 0;
  for (const int held : index_.facts_of(entity, relation)) common += index_.has(other, held);
  if (common != 1 || index_.facts_of(entity, relation).size() + index_.facts_of(other, relation).size() < 3) return std::nullopt;
  Question question{
      .operation = Computation::common, .subjects = {{entity, {}}, {other, {}}}, .ask = relation, .target = entity, .answer = index_.value(fact)};
  for (Subject& subject : question.subjects) {
    if (dice.chance(0.5)) continue;
    auto clues = identify(subject.entity, {}, dice);
    if (clues && std::find(clues->begin(), clues->end(), fact) == clues->end()) subject.clues = std::move(*clues);
  }
  return question;
}

std::optional<Question> QuestionMaker::navigation(int entity, Dice& dice) const {
  const int link = random_link(entity, dice);
  if (link < 0) return std::nullopt;
  const int next = index_.linked(index_.only(entity, link));
  const std::vector<int> asked = asks(next);
  if (asked.empty()) return std::nullopt;
  const int ask = dice.pick(asked);
  return Question{.subjects = {{entity, {}}}, .link = link, .ask = ask, .target = next, .answer = index_.value(index_.only(next, ask))};
}

}  // namespace af
