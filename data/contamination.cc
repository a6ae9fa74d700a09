#include "data/contamination.h"

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "data/words.h"

namespace af {
namespace {

constexpr std::uint64_t kBase = 0x9e3779b97f4a7c15u;

// f(hash) of each n-gram of `words`: the sum of w_i kBase^(n-1-i), carried on from one to the next.
template <class F>
void for_each_gram(const std::vector<std::uint64_t>& words, int n, F&& f) {
  if (words.size() < std::size_t(n)) return;
  std::uint64_t leaving = 1, sum = 0;  // leaving: kBase^n
  for (int i = 0; i < n; ++i) leaving *= kBase;
  for (std::size_t i = 0; i < words.size(); ++i) {
    sum = sum * kBase + words[i];
    if (i >= std::size_t(n)) sum -= leaving * words[i - std::size_t(n)];
    if (i + 1 >= std::size_t(n)) f(mix(sum + std::uint64_t(n)));
  }
}

}  // namespace

BenchmarkIndex::BenchmarkIndex(int ngram) : ngram_(ngram) { AF_CHECK(ngram >= 1, "n-grams of {} words", ngram); }

int BenchmarkIndex::add(std::string_view question) {
  std::vector<std::uint64_t> words, grams;
  for_each_word(question, [&](std::uint64_t word) { words.push_back(word); });
  const int n = std::min(ngram_, int(words.size()));
  if (n == ngram_ || n >= kLeastWords) {
    for_each_gram(words, n, [&](std::uint64_t gram) { grams.push_back(gram); });
    if (std::find(lengths_.begin(), lengths_.end(), n) == lengths_.end()) lengths_.push_back(n);
  }
  std::sort(grams.begin(), grams.end());
  grams.erase(std::unique(grams.begin(), grams.end()), grams.end());
  for (std::uint64_t gram : grams) entries_.push_back({gram, size()});
  grams_of_.push_back(int(grams.size()));
  too_short_ += grams.empty();
  return int(grams.size());
}

void BenchmarkIndex::finish() {
  std::sort(entries_.begin(), entries_.end());
  const int bits = std::max(10, int(std::bit_width(entries_.size())) + 4);  // 16 bits or more for a gram
  shift_ = 64 - bits;
  filter_.assign((std::size_t{1} << bits) / 64, 0);
  for (const Entry& entry : entries_) filter_[entry.gram >> shift_ >> 6] |= std::uint64_t{1} << (entry.gram >> shift_ & 63);
}

const std::vector<BenchmarkIndex::Hit>& BenchmarkIndex::Search::find(std::string_view text) {
  words_.clear(), found_.clear(), hits_.clear();
  for_each_word(text, [&](std::uint64_t word) { words_.push_back(word); });
  for (int n : index_.lengths_) {
    for_each_gram(words_, n, [&](std::uint64_t gram) {
      if (index_.may_have(gram)) found_.push_back(gram);
    });
  }
  std::sort(found_.begin(), found_.end());
  found_.erase(std::unique(found_.begin(), found_.end()), found_.end());
  std::vector<int> questions;  // one for each gram in common
  for (std::uint64_t gram : found_) {
    auto entry = std::lower_bound(index_.entries_.begin(), index_.entries_.end(), Entry{gram, 0});
    for (; entry != index_.entries_.end() && entry->gram == gram; ++entry) questions.push_back(entry->question);
  }
  std::sort(questions.begin(), questions.end());
  for (int question : questions) {
    if (hits_.empty() || hits_.back().question != question) hits_.push_back({question, 0});
    ++hits_.back().shared;
  }
  return hits_;
}

}  // namespace af
