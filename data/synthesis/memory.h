// The open-world memory: entities and declarative statements about them, each with its time, source and style, and where
// it is known as such the fact (relation, value) that it states. No schema and no relations between entities beyond that
// (arXiv 2509.13310, section on first-order action synthesis). One SQLite file that grows by appending and is searched by
// its full text; memory in RAM does not grow with it.
//
// Duplicates are looked for within an entity: a statement with the same text (but for white space) is kept once; free text
// (without a fact) also where its word 5-grams are similar (MinHash, 0.8) and all its numbers are the same: another
// number is news. The first stays. Near duplicates are looked for among an entity's latest 4,096 free texts.
//
// One object serves one thread; threads open the file each. Errors: UserError "FILE: ...".
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace af {

struct Statement {
  std::string entity, text;     // "France", "Tourist arrivals in France reached 4,222 thousand in June 2025."
  std::string time, source;     // as the source writes the time, "" where it does not; a URL or file name
  std::string style;            // prose, catalogue, description, search_result, page_summary, triple ...
  std::string relation, value;  // the fact, as "section", "admin"; relation "": free text
  bool own_page = false;        // `source` is the page about the entity, by which visit() finds it
  bool operator==(const Statement&) const = default;
};

struct MemoryCounts {
  std::int64_t entities = 0, statements = 0, facts = 0;
};

// A file that was read into the memory, or is being read.
struct MemorySource {
  std::string kind, name, sha256;  // sha256 of what has been read so far
  std::int64_t blocks = 0;         // of it, done
  bool finished = false;
  std::int64_t bytes = 0, lines = 0, skipped = 0;  // skipped: lines, or packages, that could not be used
  std::int64_t added = 0, exact_duplicates = 0, near_duplicates = 0;
  std::string licence;
};

class Memory {
 public:
  enum class Mode { read, append, create };
  static Memory open(const std::string& path, Mode mode);
  Memory(Memory&&) noexcept;
  ~Memory();

  const std::string& path() const;
  MemoryCounts counts();

  struct Added {
    std::int64_t added = 0, exact_duplicates = 0, near_duplicates = 0;
  };
  // One transaction: killed in it, nothing of it is there. What was added is counted in `progress`, which is written with it.
  Added add(std::span<const Statement> statements, MemorySource* progress = nullptr);
  std::vector<MemorySource> sources();  // in the order in which they were first added

  // Entities have the ids 1 ... entity_count(), in the order in which they were first named.
  std::int64_t entity_count();
  std::string entity_name(std::int64_t entity);
  std::string entity_url(std::int64_t entity);  // of its own page; "" where it has none
  std::optional<std::int64_t> find_entity(std::string_view name);
  std::optional<std::int64_t> find_page(std::string_view url);

  // In the order in which they were added.
  std::vector<Statement> statements_of(std::int64_t entity, std::int64_t limit = INT64_MAX);
  std::vector<std::string> texts_of(std::int64_t entity, std::int64_t limit = INT64_MAX);  // the statements' texts alone
  // All facts, by entity, then in the order in which they were added. The views hold during the call.
  void for_each_fact(const std::function<void(std::int64_t entity, std::string_view relation, std::string_view value)>& f);

  struct Found {
    std::int64_t entity;
    std::string title, url, snippet;
  };
  // The entities whose names and statements fit the words best (data/synthesis/memory_search.h). Never fails on any text.
  std::vector<Found> search(std::string_view query, int limit);

 private:
  struct State;
  explicit Memory(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace af
