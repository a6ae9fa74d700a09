#include "data/synthesis/database.h"

#include <sqlite3.h>

#include <filesystem>

#include "core/error.h"
#include "data/byte_stream.h"

namespace af {
namespace {

constexpr int kBusyMilliseconds = 20'000;  // another process writes: its transactions are short

}  // namespace

Query::Query(Database& database, const std::string& sql) : database_(&database) {
  if (sqlite3_prepare_v3(database.handle_, sql.c_str(), int(sql.size()) + 1, SQLITE_PREPARE_PERSISTENT, &statement_, nullptr) != SQLITE_OK)
    database.failed("cannot be used");
}

Query::~Query() { sqlite3_finalize(statement_); }

Query& Query::bind(int place, std::int64_t value) {
  if (sqlite3_bind_int64(statement_, place, value) != SQLITE_OK) database_->failed("cannot be used");
  return *this;
}

Query& Query::bind(int place, std::string_view value) {
  const char* text = value.data() ? value.data() : "";
  if (sqlite3_bind_text64(statement_, place, text, value.size(), SQLITE_TRANSIENT, SQLITE_UTF8) != SQLITE_OK) database_->failed("cannot be used");
  return *this;
}

Query& Query::bind_null(int place) {
  if (sqlite3_bind_null(statement_, place) != SQLITE_OK) database_->failed("cannot be used");
  return *this;
}

bool Query::step() {
  const int result = sqlite3_step(statement_);
  if (result == SQLITE_ROW) return true;
  if (result != SQLITE_DONE) database_->failed("cannot be read or written");
  return false;
}

void Query::run() {
  while (step()) {
  }
  reset();
}

void Query::reset() { sqlite3_reset(statement_); }

std::int64_t Query::integer(int column) const { return sqlite3_column_int64(statement_, column); }

std::string_view Query::text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  return text ? std::string_view(text, std::size_t(sqlite3_column_bytes(statement_, column))) : std::string_view();
}

bool Query::is_null(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }

Database::Database(const std::string& path, Access access) : path_(path) {
  if (access == Access::create) {
    if (std::filesystem::exists(path)) user_error("{}: there is such a file already", path);
  } else {
    stamp_of(path);  // a missing file, a folder: said as of every other input
    // The journal of a writer that was killed: rolling it back needs the right to write, which reading alone has not.
    if (access == Access::read && std::filesystem::exists(path + "-journal")) Database(path, Access::update).execute("SELECT 1 FROM sqlite_schema");
  }
  const int flags = access == Access::read     ? SQLITE_OPEN_READONLY
                    : access == Access::update ? SQLITE_OPEN_READWRITE
                                               : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  if (sqlite3_open_v2(path.c_str(), &handle_, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, nullptr) != SQLITE_OK) {
    const std::string reason = handle_ ? sqlite3_errmsg(handle_) : "out of memory";
    sqlite3_close_v2(handle_);
    user_error("{}: cannot be opened: {}", path, reason);
  }
  sqlite3_busy_timeout(handle_, kBusyMilliseconds);
  try {
    execute("SELECT count(*) FROM sqlite_schema");
  } catch (...) {
    sqlite3_close_v2(handle_);
    throw;
  }
}

Database::~Database() { sqlite3_close_v2(handle_); }

void Database::execute(const std::string& sql) {
  if (sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) failed("cannot be used");
}

std::int64_t Database::changes() const { return sqlite3_changes64(handle_); }

void Database::failed(const std::string& what) const { user_error("{}: {}: {}", path_, what, sqlite3_errmsg(handle_)); }

Transaction::Transaction(Database& database) : database_(database) { database_.execute("BEGIN IMMEDIATE"); }

Transaction::~Transaction() {
  if (!open_) return;
  try {
    database_.execute("ROLLBACK");
  } catch (const UserError&) {  // SQLite has undone it by itself, or does when the file is opened next
  }
}

void Transaction::commit() {
  database_.execute("COMMIT");
  open_ = false;
}

}  // namespace af
