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

// Entities are ranked by BM25 (S. Robertson, H. Zaragoza, "The probabilistic relevance framework", 2009) with an entity's name and
// statements as one document in which a word counts once, and thrice if it is in the name: no count of a word in a page is
// needed, and the lists of entities that hold a word, once read from the index, serve all later queries. Memory: 8 bytes
// a page, 4 an entity, and 64 MB of such lists at most.
class MemorySearch {
 public:
  explicit MemorySearch(Database& database);
  // Entities, the best first; `pages`: how many the index holds. Of equals the one that was named first.
  std::vector<std::int64_t> find(const SearchWords& words, int limit, std::int64_t pages);

 private:
  struct Postings {
    std::vector<std::uint32_t> held, named;  // entities whose documents, whose names hold the term; ascending
  };
  void load(std::int64_t pages);
  const Postings& postings(const std::string& term);
  std::vector<std::uint32_t> entities_with(const std::string& expression);

  Query pages_, match_;
  std::unordered_map<std::string, Postings> postings_;
  std::size_t cached_ = 0;                // entries of postings_' lists
  std::vector<std::uint32_t> entity_of_;  // [pages + 1]
  std::vector<std::uint32_t> bytes_of_;   // [entities + 1] the length of an entity's document
  std::size_t entities_ = 0;
  double mean_bytes_ = 1;
};

}  // namespace af
