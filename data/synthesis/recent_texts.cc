#include "data/synthesis/recent_texts.h"

#include <algorithm>
#include <array>
#include <string>

#include "core/error.h"
#include "data/duplicates.h"

namespace af {
namespace {

constexpr std::size_t kMostBytes = 64 << 20;

}  // namespace

std::uint64_t numbers_of(std::string_view text) {
  std::string digits;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] < '0' || text[i] > '9') continue;
    if (!digits.empty() && (text[i - 1] < '0' || text[i - 1] > '9')) digits += ' ';
    digits += text[i];
  }
  return hash64(digits);
}

void RecentTexts::start(std::int64_t entity) {
  constexpr std::size_t kEntityBytes = 128;
  if (bytes_ > kMostBytes) clear();
  entities_[entity] = {};
  bytes_ += kEntityBytes;
}

void RecentTexts::clear() {
  entities_.clear();
  bytes_ = 0;
}

void RecentTexts::keep(std::int64_t entity, const std::uint16_t* signature, std::uint64_t numbers) {
  Texts& texts = entities_.at(entity);
  if (texts.numbers.size() < kMostTexts) {
    texts.signatures.insert(texts.signatures.end(), signature, signature + kSignature);
    texts.numbers.push_back(numbers);
    bytes_ += kSignature * sizeof *signature + sizeof numbers;
    return;
  }
  std::copy_n(signature, kSignature, texts.signatures.begin() + std::ptrdiff_t(texts.next * kSignature));
  texts.numbers[texts.next] = numbers;
  texts.next = (texts.next + 1) % kMostTexts;
}

void RecentTexts::add(std::int64_t entity, std::string_view text) {
  std::array<std::uint16_t, kSignature> signature;
  minhash(text, signature.data());
  keep(entity, signature.data(), numbers_of(text));
}

bool RecentTexts::add_if_new(std::int64_t entity, std::string_view text) {
  const Texts& texts = entities_.at(entity);
  std::array<std::uint16_t, kSignature> signature;
  minhash(text, signature.data());
  const std::uint64_t numbers = numbers_of(text);
  for (std::size_t i = 0; i < texts.numbers.size(); ++i) {
    if (texts.numbers[i] == numbers && estimated_similarity(signature.data(), &texts.signatures[i * kSignature]) >= kThreshold) return false;
  }
  keep(entity, signature.data(), numbers);
  return true;
}

}  // namespace af
