#include "data/synthesis/offline_facts.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "core/error.h"

namespace af {
namespace {

constexpr std::size_t kLongestValue = 120;

std::string_view bare(std::string_view value) {
  if (value.ends_with('>')) {
    const auto bracket = value.find('<');
    if (bracket != std::string_view::npos && bracket > 0) value = value.substr(0, bracket);
  }
  while (!value.empty() && (value.back() == ' ' || value.back() == '\t' || value.back() == '\n')) value.remove_suffix(1);
  while (!value.empty() && (value.front() == ' ' || value.front() == '\t' || value.front() == '\n')) value.remove_prefix(1);
  return value;
}

std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

}  // namespace

int FactIndex::add_entity(std::string name) {
  const int id = int(names_.size());
  entity_ids_.emplace(name, id);
  names_.push_back(std::move(name));
  return id;
}

void FactIndex::add_fact(int entity, std::string_view relation, std::string_view value) {
  AF_CHECK(entity >= 0 && entity < entities(), "fact of entity {}, there are {}", entity, entities());
  value = bare(value);
  if (value.empty()) return;
  const auto [found, new_relation] = relation_ids_.emplace(std::string(relation), int(relations_.size()));
  if (new_relation) relations_.push_back({std::string(relation)});
  if (value.size() > kLongestValue || value.find_first_of("\n\r\t\"\\<>") != std::string_view::npos) {
    left_out_.insert(std::int64_t(entity) << 32 | found->second);
    return;
  }
  std::string key(relation);
  key += '\0';
  key += value;
  const auto [fact, new_fact] = fact_ids_.emplace(std::move(key), int(values_.size()));
  if (new_fact) values_.emplace_back(value), relation_of_.push_back(found->second);
  pairs_.push_back({entity, fact->second});
}

void FactIndex::finish() {
  fact_ids_ = {};
  // Facts are numbered anew by relation, so that an entity's facts of one relation stand together.
  std::vector<int> order(values_.size()), place(values_.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return relation_of_[a] < relation_of_[b]; });
  for (std::size_t i = 0; i < order.size(); ++i) place[order[i]] = int(i);
  std::vector<std::string> values(values_.size());
  std::vector<int> relation_of(values_.size());
  for (std::size_t i = 0; i < order.size(); ++i) values[i] = std::move(values_[order[i]]), relation_of[i] = relation_of_[order[i]];
  values_ = std::move(values), relation_of_ = std::move(relation_of);
  for (Pair& pair : pairs_) pair.fact = place[pair.fact];
  std::sort(pairs_.begin(), pairs_.end());
  pairs_.erase(std::unique(pairs_.begin(), pairs_.end()), pairs_.end());

  held_begin_.assign(names_.size() + 1, 0), postings_begin_.assign(values_.size() + 1, 0);
  for (const Pair& pair : pairs_) ++held_begin_[pair.entity + 1], ++postings_begin_[pair.fact + 1];
  std::partial_sum(held_begin_.begin(), held_begin_.end(), held_begin_.begin());
  std::partial_sum(postings_begin_.begin(), postings_begin_.end(), postings_begin_.begin());
  held_.resize(pairs_.size()), postings_.resize(pairs_.size());
  std::vector<std::size_t> next = postings_begin_;
  for (std::size_t i = 0; i < pairs_.size(); ++i) held_[i] = pairs_[i].fact, postings_[next[pairs_[i].fact]++] = pairs_[i].entity;
  pairs_ = {};

  linked_.resize(values_.size());
  for (int fact = 0; fact < facts(); ++fact) {
    Relation& relation = relations_[relation_of_[fact]];
    linked_[fact] = find(values_[fact]);
    ++relation.values, relation.facts += std::int64_t(entities_of(fact).size());
    relation.integers += whole_number(values_[fact]).has_value(), relation.linked += linked_[fact] >= 0;
  }
  naming_begin_.assign(names_.size() + 1, 0);
  for (const int entity : linked_) {
    if (entity >= 0) ++naming_begin_[entity + 1];
  }
  std::partial_sum(naming_begin_.begin(), naming_begin_.end(), naming_begin_.begin());
  naming_.resize(naming_begin_.back());
  next = naming_begin_;
  for (int fact = 0; fact < facts(); ++fact) {
    if (linked_[fact] >= 0) naming_[next[linked_[fact]]++] = fact;
  }
}

int FactIndex::find(std::string_view name) const {
  const auto found = entity_ids_.find(std::string(name));
  return found == entity_ids_.end() ? -1 : found->second;
}

std::optional<std::int64_t> FactIndex::number(int fact) const { return whole_number(values_[fact]); }

std::span<const int> FactIndex::facts_of(int entity, int relation) const {
  const auto held = facts_of(entity);
  const auto begin = std::partition_point(held.begin(), held.end(), [&](int fact) { return relation_of_[fact] < relation; });
  const auto end = std::partition_point(begin, held.end(), [&](int fact) { return relation_of_[fact] == relation; });
  return {begin, end};
}

bool FactIndex::has(int entity, int fact) const {
  const auto held = facts_of(entity);
  return std::binary_search(held.begin(), held.end(), fact);
}

int FactIndex::only(int entity, int relation) const {
  const auto held = facts_of(entity, relation);
  return held.size() == 1 && !left_out_.contains(std::int64_t(entity) << 32 | relation) ? held[0] : -1;
}

std::vector<int> FactIndex::intersect(std::span<const int> facts, std::size_t limit) const {
  const int rarest = *std::min_element(facts.begin(), facts.end(), [&](int a, int b) { return entities_of(a).size() < entities_of(b).size(); });
  std::vector<int> found;
  for (const int entity : entities_of(rarest)) {
    if (found.size() == limit) break;
    if (std::all_of(facts.begin(), facts.end(), [&](int fact) { return fact == rarest || has(entity, fact); })) found.push_back(entity);
  }
  return found;
}

}  // namespace af
