// SQLite, the one file through which it is used. A Database and its queries serve one thread.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

struct sqlite3;
struct sqlite3_stmt;

namespace af {

class Database;

// A prepared statement: bind its ?1, ?2, ..., then step through the rows; reset before the next use.
class Query {
 public:
  Query(Database& database, const std::string& sql);
  ~Query();
  Query(Query&& other) noexcept : database_(other.database_), statement_(other.statement_) { other.statement_ = nullptr; }
  Query& operator=(Query&&) = delete;

  Query& bind(int place, std::int64_t value);      // places count from 1
  Query& bind(int place, std::string_view value);  // copied
  Query& bind_null(int place);
  bool step();  // false: there is no further row
  void run();   // to the end, and ready for the next use
  void reset();

  std::int64_t integer(int column) const;   // columns count from 0
  std::string_view text(int column) const;  // until the next step or reset; "" for NULL
  bool is_null(int column) const;

 private:
  Database* database_;
  sqlite3_stmt* statement_ = nullptr;
};

class Database {
 public:
  enum class Access { read, update, create };  // create: no file may be there
  // UserError where the file cannot be opened or is no SQLite database. What a killed writer left half-done is rolled back.
  Database(const std::string& path, Access access);
  ~Database();
  Database(const Database&) = delete;

  const std::string& path() const { return path_; }
  void execute(const std::string& sql);
  std::int64_t changes() const;                             // rows of the last INSERT, UPDATE or DELETE
  [[noreturn]] void failed(const std::string& what) const;  // UserError "FILE: WHAT: SQLite's reason"

 private:
  friend class Query;
  std::string path_;
  sqlite3* handle_ = nullptr;
};

// BEGIN IMMEDIATE ... COMMIT; without commit() everything since is undone.
class Transaction {
 public:
  explicit Transaction(Database& database);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  void commit();

 private:
  Database& database_;
  bool open_ = true;
};

}  // namespace af
