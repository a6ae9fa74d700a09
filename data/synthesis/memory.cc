#include "data/synthesis/memory.h"

#include <map>
#include <unordered_map>

#include "core/error.h"
#include "data/duplicates.h"
#include "data/synthesis/database.h"
#include "data/synthesis/memory_search.h"
#include "data/synthesis/recent_texts.h"

namespace af {
namespace {

constexpr std::int64_t kMostInSnippet = 64;             // statements of an entity that are looked at
constexpr int kApplication = 0x61666d65, kVersion = 1;  // "afme"; PRAGMA application_id, user_version

// Statements lie together by entity, so that a page is one read and an exact duplicate is found in the same place. `id` counts all
// statements. texts: what repeats (times, sources, styles, relations), once each; 0 stands for "". pages: what was added to an entity at
// one time, as a row of the full-text index, which keeps no copy of the text; bytes: of that text.
constexpr const char* kSchema = R"(
CREATE TABLE entities(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, url INTEGER);
CREATE INDEX entities_by_url ON entities(url) WHERE url IS NOT NULL;
CREATE TABLE texts(id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE statements(entity INTEGER NOT NULL, identity INTEGER NOT NULL, id INTEGER NOT NULL, text TEXT NOT NULL, time INTEGER NOT NULL,
  source INTEGER NOT NULL, style INTEGER NOT NULL, relation INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY(entity, identity)) WITHOUT ROWID;
CREATE TABLE pages(id INTEGER PRIMARY KEY, entity INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE VIRTUAL TABLE pages_text USING fts5(name, body, content='', columnsize=0, tokenize='porter unicode61 remove_diacritics 2');
CREATE TABLE totals(entities INTEGER NOT NULL, statements INTEGER NOT NULL, facts INTEGER NOT NULL, pages INTEGER NOT NULL);
INSERT INTO totals VALUES(0, 0, 0, 0);
CREATE TABLE sources(id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, sha256 TEXT NOT NULL, blocks INTEGER NOT NULL,
  finished INTEGER NOT NULL, bytes INTEGER NOT NULL, lines INTEGER NOT NULL, skipped INTEGER NOT NULL, added INTEGER NOT NULL,
  exact_duplicates INTEGER NOT NULL, near_duplicates INTEGER NOT NULL, licence TEXT NOT NULL);
)";

Database::Access access_of(Memory::Mode mode) {
  return mode == Memory::Mode::read ? Database::Access::read : mode == Memory::Mode::append ? Database::Access::update : Database::Access::create;
}

MemorySource sum_of(MemorySource source, const Memory::Added& added) {
  source.added += added.added, source.exact_duplicates += added.exact_duplicates, source.near_duplicates += added.near_duplicates;
  return source;
}

}  // namespace

struct Memory::State {
  State(const std::string& path, Mode mode) : database(path, access_of(mode)), queries(prepared(mode)) {}

  struct Queries {
    explicit Queries(Database& d)
        : totals(d, "SELECT entities, statements, facts, pages FROM totals"),
          find_entity(d, "SELECT id FROM entities WHERE name = ?1"),
          entity(d, "SELECT name, coalesce((SELECT text FROM texts WHERE texts.id = entities.url), '') FROM entities WHERE id = ?1"),
          find_page(d, "SELECT min(id) FROM entities WHERE url = (SELECT id FROM texts WHERE text = ?1)"),
          find_text(d, "SELECT id FROM texts WHERE text = ?1"),
          text(d, "SELECT text FROM texts WHERE id = ?1"),
          statements(d, "SELECT text, time, source, style, relation, value FROM statements WHERE entity = ?1 ORDER BY id LIMIT ?2"),
          has_statement(d, "SELECT 1 FROM statements WHERE entity = ?1 AND identity = ?2"),
          free_texts(d,
                     "SELECT text FROM (SELECT text, id FROM statements WHERE entity = ?1 AND relation = 0 ORDER BY id DESC LIMIT ?2) ORDER BY id"),
          add_entity(d, "INSERT INTO entities VALUES(?1, ?2, NULL)"),
          set_url(d, "UPDATE entities SET url = ?2 WHERE id = ?1 AND url IS NULL"),
          add_text(d, "INSERT INTO texts(text) VALUES(?1) RETURNING id"),
          add_statement(d, "INSERT OR IGNORE INTO statements VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"),
          add_page(d, "INSERT INTO pages VALUES(?1, ?2, ?3)"),
          add_page_text(d, "INSERT INTO pages_text(rowid, name, body) VALUES(?1, ?2, ?3)"),
          set_totals(d, "UPDATE totals SET entities = ?1, statements = ?2, facts = ?3, pages = ?4"),
          search(d) {}
    Query totals, find_entity, entity, find_page, find_text, text, statements, has_statement, free_texts;
    Query add_entity, set_url, add_text, add_statement, add_page, add_page_text, set_totals;
    MemorySearch search;
  };

  Queries prepared(Mode mode) {
    if (mode == Mode::create) {
      database.execute(fmt::format("PRAGMA page_size = 8192; PRAGMA application_id = {}; PRAGMA user_version = {}", kApplication, kVersion));
      Transaction transaction(database);
      database.execute(kSchema);
      transaction.commit();
    }
    Query application(database, "SELECT application_id, user_version FROM pragma_application_id, pragma_user_version");
    application.step();
    if (application.integer(0) != kApplication) user_error("{}: is no memory (af_synth memory makes one)", database.path());
    if (application.integer(1) != kVersion)
      user_error("{}: is a memory of version {}; this program knows version {}", database.path(), application.integer(1), kVersion);
    database.execute(fmt::format("PRAGMA cache_size = -{}; PRAGMA temp_store = FILE", mode == Mode::read ? 16'000 : 64'000));
    return Queries(database);
  }

  std::int64_t text_id(const std::string& text) {  // adds it
    if (text.empty()) return 0;
    if (auto found = text_ids.find(text); found != text_ids.end()) return found->second;
    if (text_ids.size() >= kMostCached) text_ids.clear();
    Query& find = queries.find_text.bind(1, text);
    std::int64_t id = find.step() ? find.integer(0) : 0;
    find.reset();
    if (id == 0) {
      queries.add_text.bind(1, text).step();
      id = queries.add_text.integer(0);
      queries.add_text.reset();
    }
    return text_ids[text] = id;
  }

  const std::string& text(std::int64_t id) {
    if (auto found = texts.find(id); found != texts.end()) return found->second;
    if (texts.size() >= kMostCached) texts.clear();
    std::string& text = texts[id];
    if (id == 0) return text;
    Query& query = queries.text.bind(1, id);
    if (query.step()) text = query.text(0);
    query.reset();
    return text;
  }

  void write(const MemorySource& source) {  // the unfinished one of this kind and name, else a new one
    Query found(database, "SELECT id FROM sources WHERE kind = ?1 AND name = ?2 AND finished = 0");
    const bool known = found.bind(1, source.kind).bind(2, source.name).step();
    Query write(database, "INSERT OR REPLACE INTO sources VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)");
    known ? write.bind(1, found.integer(0)) : write.bind_null(1);
    write.bind(2, source.kind).bind(3, source.name).bind(4, source.sha256).bind(5, source.blocks).bind(6, std::int64_t(source.finished));
    write.bind(7, source.bytes).bind(8, source.lines).bind(9, source.skipped).bind(10, source.added).bind(11, source.exact_duplicates);
    write.bind(12, source.near_duplicates).bind(13, source.licence).run();
  }

  struct Totals {
    std::int64_t entities, statements, facts, pages;
  };
  Totals totals() {
    queries.totals.step();
    const Totals now{queries.totals.integer(0), queries.totals.integer(1), queries.totals.integer(2), queries.totals.integer(3)};
    queries.totals.reset();
    return now;
  }

  static constexpr std::size_t kMostCached = 20'000;
  Database database;
  Queries queries;
  std::unordered_map<std::string, std::int64_t> text_ids;
  std::unordered_map<std::int64_t, std::string> texts;
  RecentTexts recent;
  std::string buffer;
};

Memory::Memory(std::unique_ptr<State> state) : state_(std::move(state)) {}
Memory::Memory(Memory&&) noexcept = default;
Memory::~Memory() = default;

Memory Memory::open(const std::string& path, Mode mode) { return Memory(std::make_unique<State>(path, mode)); }

const std::string& Memory::path() const { return state_->database.path(); }

MemoryCounts Memory::counts() {
  const State::Totals totals = state_->totals();
  return {totals.entities, totals.statements, totals.facts};
}

std::int64_t Memory::entity_count() { return state_->totals().entities; }

std::optional<std::int64_t> Memory::find_entity(std::string_view name) {
  Query& query = state_->queries.find_entity.bind(1, name);
  const std::optional<std::int64_t> found = query.step() ? std::optional(query.integer(0)) : std::nullopt;
  query.reset();
  return found;
}

std::optional<std::int64_t> Memory::find_page(std::string_view url) {
  Query& query = state_->queries.find_page.bind(1, url);
  const std::optional<std::int64_t> found = query.step() && !query.is_null(0) ? std::optional(query.integer(0)) : std::nullopt;
  query.reset();
  return found;
}

std::string Memory::entity_name(std::int64_t entity) {
  Query& query = state_->queries.entity.bind(1, entity);
  AF_CHECK(query.step(), "{}: no entity {}", path(), entity);
  std::string name(query.text(0));
  query.reset();
  return name;
}

std::string Memory::entity_url(std::int64_t entity) {
  Query& query = state_->queries.entity.bind(1, entity);
  AF_CHECK(query.step(), "{}: no entity {}", path(), entity);
  std::string url(query.text(1));
  query.reset();
  return url;
}

std::vector<Statement> Memory::statements_of(std::int64_t entity, std::int64_t limit) {
  std::vector<Statement> found;
  const std::string name = entity_name(entity), url = entity_url(entity);
  Query& query = state_->queries.statements.bind(1, entity).bind(2, limit);
  while (query.step()) {
    Statement& s = found.emplace_back();
    s.entity = name, s.text = query.text(0), s.time = state_->text(query.integer(1)), s.source = state_->text(query.integer(2));
    s.style = state_->text(query.integer(3)), s.relation = state_->text(query.integer(4)), s.value = query.text(5);
    s.own_page = !url.empty() && s.source == url;
  }
  query.reset();
  return found;
}

std::vector<std::string> Memory::texts_of(std::int64_t entity, std::int64_t limit) {
  std::vector<std::string> found;
  Query& query = state_->queries.statements.bind(1, entity).bind(2, limit);
  while (query.step()) found.emplace_back(query.text(0));
  query.reset();
  return found;
}

void Memory::for_each_fact(const std::function<void(std::int64_t, std::string_view, std::string_view)>& f) {
  Query query(state_->database, "SELECT entity, relation, value FROM statements WHERE relation <> 0 ORDER BY entity, id");
  while (query.step()) f(query.integer(0), state_->text(query.integer(1)), query.text(2));
}

Memory::Added Memory::add(std::span<const Statement> statements, MemorySource* progress) {
  State& s = *state_;
  State::Queries& q = s.queries;
  Added added;
  Transaction transaction(s.database);
  State::Totals totals = s.totals();
  std::map<std::int64_t, std::string> bodies;  // by entity: what is new
  std::string last_name;
  std::int64_t entity = 0;
  try {
    for (const Statement& statement : statements) {
      AF_CHECK(!statement.entity.empty() && !statement.text.empty(), "a statement without entity or text");
      if (entity == 0 || statement.entity != last_name) {
        last_name = statement.entity;
        const std::optional<std::int64_t> found = find_entity(last_name);
        entity = found ? *found : ++totals.entities;
        if (!found) q.add_entity.bind(1, entity).bind(2, last_name).run(), s.recent.start(entity);
      }
      if (statement.own_page && !statement.source.empty()) q.set_url.bind(1, entity).bind(2, s.text_id(statement.source)).run();
      const std::int64_t identity = std::int64_t(text_identity(statement.text, s.buffer).low);
      if (statement.relation.empty()) {
        q.has_statement.bind(1, entity).bind(2, identity);
        const bool exact = q.has_statement.step();
        q.has_statement.reset();
        if (exact) {
          ++added.exact_duplicates;
          continue;
        }
        if (!s.recent.knows(entity)) {
          s.recent.start(entity);
          q.free_texts.bind(1, entity).bind(2, std::int64_t(RecentTexts::kMostTexts));
          while (q.free_texts.step()) s.recent.add(entity, q.free_texts.text(0));
          q.free_texts.reset();
        }
        if (!s.recent.add_if_new(entity, statement.text)) {
          ++added.near_duplicates;
          continue;
        }
      }
      q.add_statement.bind(1, entity).bind(2, identity).bind(3, totals.statements + 1).bind(4, statement.text).bind(5, s.text_id(statement.time));
      q.add_statement.bind(6, s.text_id(statement.source)).bind(7, s.text_id(statement.style)).bind(8, s.text_id(statement.relation));
      q.add_statement.bind(9, statement.value).run();
      if (s.database.changes() == 0) {
        ++added.exact_duplicates;
        continue;
      }
      ++added.added, ++totals.statements, totals.facts += !statement.relation.empty();
      bodies[entity].append(statement.text).push_back('\n');
    }
    for (const auto& [id, body] : bodies) {
      q.add_page.bind(1, ++totals.pages).bind(2, id).bind(3, std::int64_t(body.size())).run();
      q.add_page_text.bind(1, totals.pages).bind(2, searchable(entity_name(id))).bind(3, searchable(body)).run();
    }
    q.set_totals.bind(1, totals.entities).bind(2, totals.statements).bind(3, totals.facts).bind(4, totals.pages).run();
    if (progress) s.write(sum_of(*progress, added));
    transaction.commit();
  } catch (...) {  // what is undone is not remembered either
    s.recent.clear(), s.text_ids.clear(), s.texts.clear();
    throw;
  }
  if (progress) *progress = sum_of(*progress, added);
  return added;
}

std::vector<MemorySource> Memory::sources() {
  std::vector<MemorySource> found;
  Query query(state_->database,
              "SELECT kind, name, sha256, blocks, finished, bytes, lines, skipped, added, exact_duplicates, near_duplicates, licence FROM sources "
              "ORDER BY id");
  while (query.step()) {
    MemorySource& s = found.emplace_back();
    s.kind = query.text(0), s.name = query.text(1), s.sha256 = query.text(2), s.blocks = query.integer(3), s.finished = query.integer(4) != 0;
    s.bytes = query.integer(5), s.lines = query.integer(6), s.skipped = query.integer(7), s.added = query.integer(8);
    s.exact_duplicates = query.integer(9), s.near_duplicates = query.integer(10), s.licence = query.text(11);
  }
  return found;
}

std::vector<Memory::Found> Memory::search(std::string_view query, int limit) {
  std::vector<Found> found;
  const SearchWords words(query);
  for (std::int64_t entity : state_->queries.search.find(words, limit, state_->totals().pages)) {
    Found& f = found.emplace_back(Found{entity, entity_name(entity), entity_url(entity), ""});
    f.snippet = words.snippet(texts_of(entity, kMostInSnippet));
  }
  return found;
}

}  // namespace af
