#include "data/synthesis/knowledge.h"

#include <fmt/core.h>

#include <algorithm>
#include <numeric>

#include "core/random.h"

namespace af {
namespace {

constexpr std::int64_t kStatementsRead = 400;  // of one entity: some have very many

// Visit i of the round: i -> (a i + b) mod n is a permutation where a and n have no common divisor.
std::int64_t permuted(std::int64_t i, std::int64_t n, std::uint64_t seed, std::uint64_t round) {
  const std::uint64_t stream = hash_name("knowledge.round");
  std::int64_t a = 1 + std::int64_t(random_below(seed, stream, 2 * round, std::uint64_t(n)));
  while (std::gcd(a, n) != 1) ++a;
  const std::int64_t b = std::int64_t(random_below(seed, stream, 2 * round + 1, std::uint64_t(n)));
  return std::int64_t((static_cast<unsigned __int128>(a) * static_cast<unsigned __int128>(i) + static_cast<unsigned __int128>(b)) %
                      static_cast<unsigned __int128>(n));
}

// `count` of 0 ... n-1, in order.
std::vector<std::size_t> drawn(std::size_t n, std::size_t count, std::uint64_t seed, std::uint64_t stream) {
  std::vector<std::size_t> all(n);
  std::iota(all.begin(), all.end(), 0);
  for (std::size_t i = 0; i < std::min(n, count); ++i) std::swap(all[i], all[i + random_below(seed, stream, i, n - i)]);
  all.resize(std::min(n, count));
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace

KnowledgeSampler::KnowledgeSampler(Memory& memory, KnowledgeOptions options) : memory_(memory), options_(options), entities_(memory.entity_count()) {}

std::vector<std::int64_t> KnowledgeSampler::companions(std::int64_t entity, const std::vector<Statement>& statements, std::uint64_t stream,
                                                       std::size_t most) {
  std::vector<std::int64_t> linked;
  const auto add = [&](std::int64_t other) {
    if (other != entity && std::find(linked.begin(), linked.end(), other) == linked.end()) linked.push_back(other);
  };
  for (const Statement& statement : statements) {
    if (statement.relation.empty()) continue;
    if (const std::optional<std::int64_t> other = memory_.find_entity(statement.value)) add(*other);
  }
  if (linked.empty() && most > 0) {
    for (const Memory::Found& found : memory_.search(memory_.entity_name(entity), 10)) add(found.entity);
  }
  std::vector<std::int64_t> chosen;
  for (std::size_t i : drawn(linked.size(), most, options_.seed, stream)) chosen.push_back(linked[i]);
  return chosen;
}

void KnowledgeSampler::append(std::int64_t entity, const std::vector<Statement>& statements, std::uint64_t stream, Knowledge& knowledge) const {
  const std::string name = memory_.entity_name(entity);
  std::string text = "## " + name + "\n";
  bool any = false;
  for (std::size_t i : drawn(statements.size(), std::size_t(options_.statements_per_entity), options_.seed, stream)) {
    const Statement& statement = statements[i];
    std::string line = statement.text;
    std::replace(line.begin(), line.end(), '\n', ' ');
    if (!statement.time.empty() && line.find(statement.time) == std::string::npos) line += fmt::format(" (as of {})", statement.time);
    if (knowledge.text.size() + text.size() + line.size() > options_.most_bytes) continue;
    text += line + "\n";
    any = true;
  }
  if (!any) return;
  knowledge.entities.push_back(name);
  knowledge.text += text;
}

std::optional<Knowledge> KnowledgeSampler::next() {
  if (entities_ == 0) return std::nullopt;
  for (;;) {
    const std::int64_t round = visited_ / entities_, place = visited_ % entities_;
    if (place == 0) {
      if (round > 0 && given_ == given_before_) return std::nullopt;
      given_before_ = given_;
    }
    const std::int64_t entity = 1 + permuted(place, entities_, options_.seed, std::uint64_t(round));
    const std::uint64_t stream = hash_name("knowledge.cluster") + 64 * std::uint64_t(visited_++);
    const std::vector<Statement> statements = memory_.statements_of(entity, kStatementsRead);
    if (std::int64_t(statements.size()) < options_.least_statements) continue;
    Knowledge knowledge;
    append(entity, statements, stream, knowledge);
    if (knowledge.entities.empty()) continue;
    const std::size_t more = random_below(options_.seed, stream + 1, 0, std::uint64_t(options_.most_entities));
    std::uint64_t own = stream + 2;
    for (std::int64_t other : companions(entity, statements, own++, more))
      append(other, memory_.statements_of(other, kStatementsRead), own++, knowledge);
    knowledge.number = given_++;
    return knowledge;
  }
}

}  // namespace af
