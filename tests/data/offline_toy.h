// Facts for the tests of the offline teacher, as strings, and tools that are answered from them by the plainest means.
#pragma once
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "core/random.h"
#include "data/synthesis/offline_facts.h"
#include "data/synthesis/offline_trajectory.h"

namespace af {

struct ToyFact {
  std::string entity, relation, value;
};
using ToyFacts = std::vector<ToyFact>;

// Packages as in a distribution's index: skewed sections, tags and dependencies.
inline ToyFacts toy_facts(int entities, std::uint64_t seed) {
  const std::vector<std::string> syllables{"ba", "ko", "ri", "tu", "ze", "lo", "mi", "sha", "dor", "ven", "qui", "pla"};
  std::uint64_t next = 0;
  const auto below = [&](std::uint64_t n) { return random_below(seed, 7, next++, n); };
  const auto skewed = [&](std::uint64_t n) { return std::min(below(n), below(n)); };
  const auto word = [&](std::uint64_t number) {
    std::string text;
    for (int i = 0; i < 4; ++i) text += syllables[(number >> (4 * i)) % syllables.size()], number += 5;
    return text + std::to_string(number % 10);
  };
  std::vector<std::string> names;
  for (int e = 0; e < entities; ++e) names.push_back(word(std::uint64_t(e) * 2654435761u) + "-" + std::to_string(e));
  ToyFacts facts;
  for (int e = 0; e < entities; ++e) {
    const auto add = [&](const std::string& relation, const std::string& value) { facts.push_back({names[std::size_t(e)], relation, value}); };
    add("section", "section" + std::to_string(skewed(30)));
    add("maintainer", "Keeper " + word(skewed(std::uint64_t(entities) / 8 + 1)) + " <keeper@example.org>");
    add("installed_size", std::to_string(20 + below(20000)));
    add("homepage", "https://" + names[std::size_t(e)] + ".example.org/");
    for (std::uint64_t i = below(4); i > 0; --i) add("depends", names[skewed(std::uint64_t(entities))]);
    if (below(2)) add("recommends", names[skewed(std::uint64_t(entities))]);
    if (below(3) == 0) add("enhances", names[below(std::uint64_t(entities))]);
    for (std::uint64_t i = below(3); i > 0; --i) add("tag.works-with", "stuff-" + std::to_string(skewed(25)));
    if (below(2)) add("tag.interface", "interface-" + std::to_string(skewed(8)));
  }
  return facts;
}

inline FactIndex toy_index(const ToyFacts& facts) {
  FactIndex index;
  std::map<std::string, int> ids;
  for (const ToyFact& fact : facts) {
    if (!ids.contains(fact.entity)) ids[fact.entity] = index.add_entity(fact.entity);
  }
  for (const ToyFact& fact : facts) index.add_fact(ids[fact.entity], fact.relation, fact.value);
  index.finish();
  return index;
}

// search: entities by how many of the query's words are among their values; visit: a line for each fact.
inline WorldAccess toy_world(const FactIndex& index) {
  const auto url = [&index](int entity) { return "memory://entity/" + index.name(entity); };
  const auto answer = [&index, url](const ToolCall& call) {
    std::string text = "<tool_response>\n";
    if (call.name == "search") {
      std::map<int, int> hits;
      for (const Json& query : call.arguments.find("query")->array()) {
        const std::string words = " " + query.string() + " ";
        for (int f = 0; f < index.facts(); ++f) {
          if (words.find(" " + index.value(f) + " ") == std::string::npos) continue;
          for (const int e : index.entities_of(f)) ++hits[e];
        }
      }
      std::vector<std::pair<int, int>> order;
      for (const auto& [e, count] : hits) order.push_back({-count, e});
      std::sort(order.begin(), order.end());
      for (std::size_t i = 0; i < order.size() && i < 3; ++i) text += url(order[i].second) + "\n";
    } else {
      for (const Json& page : call.arguments.find("url")->array()) {
        const int e = index.find(page.string().substr(16));
        text += index.name(e) + ":";
        for (const int f : index.facts_of(e)) text += " " + index.relation(index.relation_of(f)).name + " " + index.value(f) + ";";
        text += "\n";
      }
    }
    return text + "</tool_response>";
  };
  return {answer, url};
}

}  // namespace af
