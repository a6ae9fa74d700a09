#include "data/bpe_trainer.h"

#include <algorithm>
#include <queue>

#include "core/error.h"
#include "data/bpe_builder.h"

namespace af {
namespace {

constexpr std::size_t kLongestWord = 256;  // longer ones are cut: a merge goes through every word that it occurs in
constexpr std::int64_t kLeastCount = 2;    // what occurs once teaches nothing

using Pair = std::uint64_t;  // left id << 32 | right id
Pair pair_of(std::uint32_t left, std::uint32_t right) { return Pair(left) << 32 | right; }

struct Word {
  std::vector<std::uint32_t> symbols;
  std::int64_t count;
};

// The pairs of neighbours in all words, how often each occurs and where, while merges go on. The queue holds each pair with
// a count that it once had; counts only fall (but for pairs with the newest token), so the first whose count still holds
// is the most frequent.
class PairTable {
 public:
  explicit PairTable(std::vector<Word> words) : words_(std::move(words)) {
    for (std::uint32_t w = 0; w < words_.size(); ++w) {
      const std::vector<std::uint32_t>& symbols = words_[w].symbols;
      for (std::size_t i = 0; i + 1 < symbols.size(); ++i) add(pair_of(symbols[i], symbols[i + 1]), words_[w].count, w);
    }
    queue_new_pairs();
  }

  // The most frequent pair; false where none occurs kLeastCount times.
  bool pop(Pair& pair) {
    while (!queue_.empty()) {
      const Entry top = queue_.top();
      queue_.pop();
      const auto found = places_.find(top.pair);
      if (found == places_.end() || found->second.count < kLeastCount) continue;
      if (found->second.count == top.count) {
        pair = top.pair;
        return true;
      }
      queue_.push({found->second.count, top.pair});
    }
    return false;
  }

  void merge(Pair pair, std::uint32_t result) {
    const auto found = places_.find(pair);
    const std::vector<std::uint32_t> words = std::move(found->second.words);
    places_.erase(found);
    for (std::uint32_t w : words) merge_in(w, std::uint32_t(pair >> 32), std::uint32_t(pair), result);
    queue_new_pairs();
  }

 private:
  struct Places {
    std::int64_t count = 0;
    std::vector<std::uint32_t> words;  // in which it may occur
  };
  struct Entry {
    std::int64_t count;
    Pair pair;
    bool operator<(const Entry& other) const { return count != other.count ? count < other.count : pair > other.pair; }
  };

  void add(Pair pair, std::int64_t count, std::uint32_t word) {
    Places& places = places_[pair];
    if (places.count == 0) new_pairs_.push_back(pair);
    places.count += count;
    if (places.words.empty() || places.words.back() != word) places.words.push_back(word);
  }

  void take(Pair pair, std::int64_t count) {
    const auto found = places_.find(pair);
    if (found != places_.end() && (found->second.count -= count) <= 0) places_.erase(found);
  }

  // [.. a L R b ..] -> [.. a T b ..], from the left.
  void merge_in(std::uint32_t w, std::uint32_t left, std::uint32_t right, std::uint32_t result) {
    auto& [symbols, count] = words_[w];
    std::size_t kept = 0;
    for (std::size_t i = 0; i < symbols.size(); ++i) {
      if (i + 1 == symbols.size() || symbols[i] != left || symbols[i + 1] != right) {
        symbols[kept++] = symbols[i];
        continue;
      }
      if (kept > 0) {
        take(pair_of(symbols[kept - 1], left), count);
        add(pair_of(symbols[kept - 1], result), count, w);
      }
      if (i + 2 < symbols.size()) {
        take(pair_of(right, symbols[i + 2]), count);
        add(pair_of(result, symbols[i + 2]), count, w);
      }
      symbols[kept++] = result;
      ++i;
    }
    symbols.resize(kept);
  }

  // Pairs that occur too seldom to be merged ever are forgotten: most of them.
  void queue_new_pairs() {
    for (Pair pair : new_pairs_) {
      const auto found = places_.find(pair);
      if (found == places_.end()) continue;
      if (found->second.count < kLeastCount) {
        places_.erase(found);
      } else {
        queue_.push({found->second.count, pair});
      }
    }
    new_pairs_.clear();
  }

  std::vector<Word> words_;
  std::unordered_map<Pair, Places> places_;
  std::vector<Pair> new_pairs_;
  std::priority_queue<Entry> queue_;
};

}  // namespace

void BpeTrainer::add(std::string_view text) {
  for (std::size_t begin = 0; begin < text.size();) {
    const auto [end, token] = specials_.next(text, begin, SpecialTokens::split);
    const std::string_view ordinary = unicode_.nfc(text.substr(begin, end - begin), normalised_);
    for (std::size_t at = 0; at < ordinary.size();) {
      const std::size_t next = std::min(splitter_.word_end(ordinary, at), at + kLongestWord);
      word_.assign(ordinary, at, next - at);
      ++words_[word_];
      at = next;
    }
    begin = token ? end + token->text.size() : end;
  }
}

BpeVocabulary BpeTrainer::train(std::int64_t vocab_size) const {
  BpeVocabulary vocabulary;
  std::vector<std::string>& tokens = vocabulary.tokens;
  std::unordered_map<std::string, std::uint32_t> ids;
  auto id_of = [&](std::string bytes) {
    const auto [entry, is_new] = ids.try_emplace(std::move(bytes), std::uint32_t(tokens.size()));
    if (is_new) tokens.push_back(entry->first);
    return entry->second;
  };
  const ByteAlphabet alphabet;
  std::array<std::string, 256> bytes;
  for (int byte = 0; byte < 256; ++byte) bytes[byte] = std::string(1, char(byte));
  std::sort(bytes.begin(), bytes.end(),
            [&](const std::string& a, const std::string& b) { return alphabet.character_of(a[0]) < alphabet.character_of(b[0]); });
  for (const std::string& byte : bytes) id_of(byte);

  std::vector<Word> words;
  for (const auto& [text, count] : words_) {
    Word& word = words.emplace_back(std::vector<std::uint32_t>(text.size()), count);
    std::transform(text.begin(), text.end(), word.symbols.begin(), [&](char byte) { return ids.at(std::string(1, byte)); });
  }
  PairTable pairs(std::move(words));
  const std::int64_t specials = std::int64_t(specials_.tokens().size());
  AF_CHECK(vocab_size >= 256 + specials, "{} ids hold no bytes and special tokens", vocab_size);
  for (Pair pair; std::int64_t(tokens.size()) + specials < vocab_size && pairs.pop(pair);) {
    const std::uint32_t left = std::uint32_t(pair >> 32), right = std::uint32_t(pair), result = id_of(tokens[left] + tokens[right]);
    pairs.merge(pair, result);
    vocabulary.merges.push_back({left, right, result});
  }
  vocabulary.specials = qwen_special_tokens(std::uint32_t(tokens.size()));
  return vocabulary;
}

}  // namespace af
