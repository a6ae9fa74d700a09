// Finds documents of a corpus that repeat a benchmark's questions: a document and a question that have an n-gram of words in common
// (data/words.h), 13 words as a rule, as GPT-3's authors did (arXiv 2005.14165, appendix C: 13-grams; a shorter question as a whole, of
// 8 words at least). N-grams are compared by 64-bit hashes; memory is 16 bytes for each of the benchmark's, whatever the corpus.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace af {

class BenchmarkIndex {
 public:
  static constexpr int kLeastWords = 8;  // of a question shorter than an n-gram

  explicit BenchmarkIndex(int ngram);

  // Adds question number size(); how many different n-grams it has, 0: it is too short to be looked for. All before the first find().
  int add(std::string_view question);
  void finish();
  int size() const { return int(grams_of_.size()); }
  int ngrams_of(int question) const { return grams_of_[std::size_t(question)]; }
  int too_short() const { return too_short_; }

  struct Hit {
    int question, shared;  // how many of the question's different n-grams the text has
    bool operator==(const Hit&) const = default;
  };
  // For one thread.
  class Search {
   public:
    explicit Search(const BenchmarkIndex& index) : index_(index) {}
    const std::vector<Hit>& find(std::string_view text);  // by question, ascending

   private:
    const BenchmarkIndex& index_;
    std::vector<std::uint64_t> words_, found_;
    std::vector<Hit> hits_;
  };

 private:
  friend class Search;
  struct Entry {
    std::uint64_t gram;
    int question;
    auto operator<=>(const Entry&) const = default;
  };
  bool may_have(std::uint64_t gram) const { return (filter_[gram >> shift_ >> 6] >> ((gram >> shift_) & 63) & 1) != 0; }

  int ngram_;
  std::vector<Entry> entries_;          // sorted
  std::vector<std::uint64_t> filter_;   // a bit for the leading bits of each gram: most others are dismissed by one look
  int shift_ = 0;
  std::vector<int> lengths_;            // of n-grams that occur
  std::vector<int> grams_of_;           // per question
  int too_short_ = 0;
};

}  // namespace af
