// The memory's full-text index (SQLite's FTS5) asked as a search engine is: by words, with the best pages first.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/synthesis/database.h"

namespace af {

// As the index takes text: FTS5 cuts words at what is no letter or digit; characters of Chinese, Japanese and Korean, which
// are written without spaces, become words of their own.
std::string searchable(std::string_view text);

// The words of a query. What stands between spaces, or in quotes, is one term, a phrase where it has several words
// ("libstdc++6": libstdc 6). At most 32 different terms; all else in a query is no error and means nothing.
class SearchWords {
 public:
  explicit SearchWords(std::string_view query);
  const std::vector<std::string>& terms() const { return terms_; }  // each an FTS5 string: "\"libstdc 6\""
  int count_in(std::string_view text) const;                        // how many of the words it holds
  // Of the statements the one that holds most of the words, and the one that adds most to it: at most 300 bytes.
  std::string snippet(std::span<const std::string> statements) const;

 private:
  std::vector<std::string> terms_, words_;  // words_: lower case
};

class MemorySearch {
 public:
  explicit MemorySearch(Database& database);
  // Entities, the best first; `pages`: how many the index holds.
  std::vector<std::int64_t> find(const SearchWords& words, int limit, std::int64_t pages);

 private:
  void match(const std::string& expression, std::size_t limit, std::vector<std::int64_t>& found);
  std::int64_t frequency(const std::string& term, std::int64_t most);

  Query match_, count_;
  std::unordered_map<std::string, std::int64_t> frequencies_;
  std::int64_t pages_ = -1;  // when they were counted
};

}  // namespace af
