// The latest free texts of the entities that are being added to, for near duplicates. Bounded memory: an entity's latest
// kMostTexts, and all entities are forgotten (to be read again from the file) where they come to 64 MB.
#pragma once
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace af {

class RecentTexts {
 public:
  static constexpr std::size_t kMostTexts = 4096;
  static constexpr double kThreshold = 0.8;  // of the Jaccard similarity of word 5-grams, by data/minhash.h

  bool knows(std::int64_t entity) const { return entities_.contains(entity); }
  void start(std::int64_t entity);  // with no texts
  void add(std::int64_t entity, std::string_view text);
  // False, and not added, where a text of the entity is similar and has the same numbers (runs of digits) in the same order.
  bool add_if_new(std::int64_t entity, std::string_view text);
  void clear();

 private:
  struct Texts {
    std::vector<std::uint16_t> signatures;  // [n, kSignature]
    std::vector<std::uint64_t> numbers;     // [n] a hash of each text's numbers
    std::size_t next = 0;                   // the oldest, where there are kMostTexts
  };
  void keep(std::int64_t entity, const std::uint16_t* signature, std::uint64_t numbers);

  std::unordered_map<std::int64_t, Texts> entities_;
  std::size_t bytes_ = 0;
};

// A hash of the runs of digits in a text, in their order.
std::uint64_t numbers_of(std::string_view text);

}  // namespace af
