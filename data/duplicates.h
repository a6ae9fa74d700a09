// Documents that came before: exact (the same text but for white space) and near (similar word 5-grams). The first of a
// group is the one to keep.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/hash.h"
#include "data/minhash.h"

namespace af {

// Of a text in which each run of white space (ASCII) is one space, and none stands at either end.
Hash128 text_identity(std::string_view text, std::string& buffer);

// Memory: 21 to 32 bytes a document, and two thirds more for the moment in which it grows.
class ExactIndex {
 public:
  // The number under which this identity was added first; nullopt: it is new, and has this number now.
  std::optional<std::int64_t> find_or_add(Hash128 identity, std::int64_t number);

 private:
  static constexpr int kNumberBits = 40;
  struct Slot {  // 88 bits of the identity, and number + 1; 0: the slot is free
    std::uint64_t high = 0, rest = 0;
    std::int64_t number() const { return std::int64_t(rest & ((std::uint64_t{1} << kNumberBits) - 1)) - 1; }
  };
  Slot& slot_of(std::uint64_t high, std::uint64_t low);
  std::vector<Slot> slots_;
  std::size_t used_ = 0;
};

// Signatures are cut into bands of rows; two texts are compared where a band is equal (locality-sensitive hashing), and
// are near where the estimated similarity reaches the threshold. Bands are chosen so that two texts of just that
// similarity meet with a probability of 0.99. Memory: 264 bytes a document and 8 to 16 for each band, of which a
// threshold of 0.8 has 21: 0.4 to 0.6 KB.
class NearIndex {
 public:
  explicit NearIndex(double threshold);
  // As above. A signature that is near to one that was added is not added.
  std::optional<std::int64_t> find_or_add(const std::uint16_t* signature, std::int64_t number);
  std::size_t bands() const { return bands_; }
  std::size_t rows() const { return rows_; }

 private:
  static constexpr std::size_t kBlock = 4096;    // signatures allocated at once
  static constexpr std::size_t kMostInBand = 4;  // documents kept under one band's value: boilerplate is in everything
  static constexpr std::uint32_t kFree = ~std::uint32_t{0};
  struct Slot {
    std::uint32_t tag = 0, document = kFree;
  };
  std::uint16_t* signature_of(std::size_t document) const { return &signatures_[document / kBlock][document % kBlock * kSignature]; }
  std::uint64_t key(const std::uint16_t* signature, std::size_t band) const;
  void add_to_bands(std::uint32_t document);
  void grow();

  double threshold_;
  std::size_t bands_ = 0, rows_ = 0, used_ = 0;
  std::vector<std::unique_ptr<std::uint16_t[]>> signatures_;
  std::vector<std::int64_t> numbers_;
  std::vector<Slot> slots_;
};

double estimated_similarity(const std::uint16_t* a, const std::uint16_t* b);

}  // namespace af
