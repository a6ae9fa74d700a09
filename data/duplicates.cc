#include "data/duplicates.h"

#include <cmath>
#include <cstring>

#include "core/error.h"

namespace af {
namespace {

// Spreads a hash over `size` slots, whatever their number.
std::size_t slot(std::uint64_t hash, std::size_t size) {
  __extension__ using Wide = unsigned __int128;
  return std::size_t(Wide(hash) * size >> 64);
}

constexpr bool too_full(std::size_t used, std::size_t size) { return 4 * (used + 1) > 3 * size; }
constexpr std::size_t grown(std::size_t size) { return size + size / 2 + 1024; }

}  // namespace

Hash128 text_identity(std::string_view text, std::string& buffer) {
  if (buffer.size() < text.size()) buffer.resize(text.size());
  char* const out = buffer.data();  // of its own: a char may be any object, the string's pointer too
  std::size_t size = 0;
  bool after_space = true;
  for (char c : text) {  // without a branch that text would mislead
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    out[size] = space ? ' ' : c;
    size += !(space && after_space);
    after_space = space;
  }
  if (size > 0 && after_space) --size;
  return hash128(std::string_view(buffer).substr(0, size));
}

ExactIndex::Slot& ExactIndex::slot_of(std::uint64_t high, std::uint64_t low) {
  std::size_t at = slot(high, slots_.size());
  while (slots_[at].number() >= 0 && !(slots_[at].high == high && slots_[at].rest >> kNumberBits == low)) at = at + 1 == slots_.size() ? 0 : at + 1;
  return slots_[at];
}

std::optional<std::int64_t> ExactIndex::find_or_add(Hash128 identity, std::int64_t number) {
  AF_CHECK(number >= 0 && number + 1 < std::int64_t{1} << kNumberBits, "document {}", number);
  if (too_full(used_, slots_.size())) {
    std::vector<Slot> before(grown(slots_.size()));
    before.swap(slots_);
    for (const Slot& old : before) {
      if (old.number() >= 0) slot_of(old.high, old.rest >> kNumberBits) = old;
    }
  }
  const std::uint64_t low = identity.low >> kNumberBits;
  Slot& found = slot_of(identity.high, low);
  if (found.number() >= 0) return found.number();
  found = {identity.high, low << kNumberBits | std::uint64_t(number + 1)};
  ++used_;
  return std::nullopt;
}

double estimated_similarity(const std::uint16_t* a, const std::uint16_t* b) {
  int equal = 0;
  for (std::size_t i = 0; i < kSignature; ++i) equal += a[i] == b[i];
  return double(equal) / double(kSignature);
}

NearIndex::NearIndex(double threshold) : threshold_(threshold) {
  for (std::size_t rows = 1; rows <= kSignature / 2; ++rows) {  // the longest bands that still meet: fewest comparisons in vain
    const std::size_t bands = kSignature / rows;
    const double meet = 1 - std::pow(1 - std::pow(threshold, double(rows)), double(bands));
    if (rows == 1 || meet >= 0.99) rows_ = rows, bands_ = bands;
  }
}

std::uint64_t NearIndex::key(const std::uint16_t* signature, std::size_t band) const {
  return hash64({reinterpret_cast<const char*>(signature + band * rows_), rows_ * sizeof *signature}, band);
}

void NearIndex::add_to_bands(std::uint32_t document) {
  for (std::size_t band = 0; band < bands_; ++band) {
    const std::uint64_t hash = key(signature_of(document), band);
    std::size_t at = slot(hash, slots_.size()), same = 0;
    for (; slots_[at].document != kFree && same < kMostInBand; at = at + 1 == slots_.size() ? 0 : at + 1)
      same += slots_[at].tag == std::uint32_t(hash);
    if (same == kMostInBand) continue;
    slots_[at] = {std::uint32_t(hash), document};
    ++used_;
  }
}

void NearIndex::grow() {
  slots_.assign(0, {});
  slots_.shrink_to_fit();
  slots_.resize(std::max(grown(4 * used_ / 3), 2 * bands_ * (numbers_.size() + 1)));
  used_ = 0;
  for (std::uint32_t document = 0; document < numbers_.size(); ++document) add_to_bands(document);  // in the same order: the same are kept
}

std::optional<std::int64_t> NearIndex::find_or_add(const std::uint16_t* signature, std::int64_t number) {
  if (too_full(used_ + bands_, slots_.size())) grow();
  for (std::size_t band = 0; band < bands_; ++band) {
    const std::uint64_t hash = key(signature, band);
    for (std::size_t at = slot(hash, slots_.size()); slots_[at].document != kFree; at = at + 1 == slots_.size() ? 0 : at + 1) {
      if (slots_[at].tag != std::uint32_t(hash)) continue;
      if (estimated_similarity(signature, signature_of(slots_[at].document)) >= threshold_) return numbers_[slots_[at].document];
    }
  }
  const std::size_t document = numbers_.size();
  if (document >= kFree) user_error("more than {} different documents: near duplicates can be looked for in parts of the corpus only", kFree);
  if (document % kBlock == 0) signatures_.push_back(std::make_unique<std::uint16_t[]>(kBlock * kSignature));
  std::memcpy(signature_of(document), signature, kSignature * sizeof *signature);
  numbers_.push_back(number);
  add_to_bands(std::uint32_t(document));
  return std::nullopt;
}

}  // namespace af
