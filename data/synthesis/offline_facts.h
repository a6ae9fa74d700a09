// The facts of a memory as integers, for questions whose answers are sets: from a fact (relation, value) to the entities
// that have it (its posting list) and from an entity to its facts. About 24 bytes a fact and the strings once each.
//
// Entities are numbered 0 ... n-1 as they were added. A value is kept without what follows it in angle brackets ("Jane Roe
// <jane@example.org>" is "Jane Roe"), without white space around it and up to its first 120 bytes (longer ones are no facts
// to ask for, and left out).
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace af {

struct Relation {
  std::string name;
  std::int64_t facts = 0, values = 0;     // (entity, value) pairs; different values
  std::int64_t integers = 0, linked = 0;  // of the values: whole numbers; names of entities
  bool numeric() const { return integers == values; }
  bool link() const { return linked * 2 > values; }
};

class FactIndex {
 public:
  // In this order: all entities, their facts (any order, repetitions count once), then finish().
  int add_entity(std::string name);
  void add_fact(int entity, std::string_view relation, std::string_view value);
  void finish();

  int entities() const { return int(names_.size()); }
  int facts() const { return int(relation_of_.size()); }  // different ones
  int relations() const { return int(relations_.size()); }
  const std::string& name(int entity) const { return names_[entity]; }
  int find(std::string_view name) const;  // -1: no such entity
  const Relation& relation(int relation) const { return relations_[relation]; }

  int relation_of(int fact) const { return relation_of_[fact]; }
  const std::string& value(int fact) const { return values_[fact]; }
  int linked(int fact) const { return linked_[fact]; }  // the entity that the value names; -1: none
  std::optional<std::int64_t> number(int fact) const;   // of a value that is a whole number

  std::span<const int> entities_of(int fact) const { return slice(postings_, postings_begin_, fact); }  // ascending
  std::span<const int> facts_of(int entity) const { return slice(held_, held_begin_, entity); }         // ascending, so by relation
  std::span<const int> facts_of(int entity, int relation) const;
  bool has(int entity, int fact) const;
  std::span<const int> facts_naming(int entity) const { return slice(naming_, naming_begin_, entity); }  // whose value is its name
  int only(int entity, int relation) const;  // the entity's fact where it has just one of this relation, left out ones too, else -1

  // The entities that have all these facts (at least one is given), at most `limit` of them, ascending.
  std::vector<int> intersect(std::span<const int> facts, std::size_t limit) const;

 private:
  static std::span<const int> slice(const std::vector<int>& of, const std::vector<std::size_t>& begin, int i) {
    return {of.data() + begin[i], of.data() + begin[i + 1]};
  }
  struct Pair {
    int entity, fact;
    auto operator<=>(const Pair&) const = default;
  };
  std::vector<std::string> names_, values_;
  std::unordered_set<std::int64_t> left_out_;  // entity << 32 | relation: has values that are too long to be kept
  std::vector<Relation> relations_;
  std::vector<int> relation_of_, linked_;
  std::vector<Pair> pairs_;  // until finish()
  std::vector<std::size_t> postings_begin_, held_begin_, naming_begin_;
  std::vector<int> postings_, held_, naming_;
  std::unordered_map<std::string, int> relation_ids_, entity_ids_, fact_ids_;  // the last: "relation\0value", until finish()
};

}  // namespace af
