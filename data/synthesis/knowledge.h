// What is known of an entity and of those that it is linked with: the ground of questions.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/synthesis/memory.h"

namespace af {

struct Knowledge {
  std::int64_t number = 0;            // of the cluster, from 0
  std::vector<std::string> entities;  // the first is the one it began with
  std::string text;                   // "## ENTITY" and its statements, a line each
};

struct KnowledgeOptions {
  std::uint64_t seed = 0;
  int most_entities = 3;           // of a cluster, 1 ... most, drawn uniformly
  int statements_per_entity = 12;  // drawn where there are more; their order stays
  int least_statements = 2;        // an entity with fewer begins no cluster
  std::size_t most_bytes = 8000;   // of the text
};

// Clusters in an order that depends on the seed alone: every entity begins one, then all of them again with other companions. An entity is linked
// with those that its facts name, else with those that its name is found with.
class KnowledgeSampler {
 public:
  KnowledgeSampler(Memory& memory, KnowledgeOptions options);
  std::optional<Knowledge> next();  // nullopt: no entity has enough statements

 private:
  std::vector<std::int64_t> companions(std::int64_t entity, const std::vector<Statement>& statements, std::uint64_t stream, std::size_t most);
  void append(std::int64_t entity, const std::vector<Statement>& statements, std::uint64_t stream, Knowledge& knowledge) const;

  Memory& memory_;
  KnowledgeOptions options_;
  std::int64_t entities_, visited_ = 0, given_ = 0, given_before_ = 0;  // before: when the round began
};

}  // namespace af
