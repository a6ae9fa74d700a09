#include "models/sampling.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace af {
namespace {

std::vector<float> penalised(std::span<const float> logits, std::span<const std::int32_t> before, double penalty) {
  std::vector<float> out(logits.begin(), logits.end());
  if (penalty == 1) return out;
  for (const std::int32_t id : before) {  // once each, however often it occurred
    const float x = logits[std::size_t(id)];
    out[std::size_t(id)] = x < 0 ? x * float(penalty) : x / float(penalty);
  }
  return out;
}

}  // namespace

std::vector<WeightedToken> distribution(std::span<const float> raw, std::span<const std::int32_t> before, const SamplingSettings& settings) {
  AF_CHECK(!raw.empty() && settings.temperature >= 0 && settings.top_p > 0 && settings.repetition_penalty > 0,
           "sampling from {} logits, temperature {}, top-p {}, repetition penalty {}", raw.size(), settings.temperature, settings.top_p,
           settings.repetition_penalty);
  const std::vector<float> logits = penalised(raw, before, settings.repetition_penalty);
  const auto most = std::max_element(logits.begin(), logits.end());
  if (settings.temperature == 0) return {{std::int32_t(most - logits.begin()), 1}};

  std::vector<WeightedToken> tokens(logits.size());
  double total = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    tokens[i] = {std::int32_t(i), std::exp((double(logits[i]) - double(*most)) / settings.temperature)};
    total += tokens[i].probability;
  }
  const auto likelier = [](const WeightedToken& a, const WeightedToken& b) {
    return a.probability != b.probability ? a.probability > b.probability : a.id < b.id;
  };
  // The nucleus is small beside a vocabulary: only as much is sorted as it takes.
  double sum = 0;
  std::size_t kept = 0;
  for (std::size_t sorted = 0; kept == sorted && sorted < tokens.size();) {
    const std::size_t next = settings.top_p < 1 ? std::min(tokens.size(), std::max<std::size_t>(64, 8 * sorted)) : tokens.size();
    std::partial_sort(tokens.begin() + std::ptrdiff_t(sorted), tokens.begin() + std::ptrdiff_t(next), tokens.end(), likelier);
    for (sorted = next; kept < sorted && (kept == 0 || settings.top_p >= 1 || sum < settings.top_p * total); ++kept) sum += tokens[kept].probability;
  }
  tokens.resize(kept);
  for (WeightedToken& token : tokens) token.probability /= sum;
  return tokens;
}

std::int32_t draw(std::span<const WeightedToken> tokens, double uniform) {
  double sum = 0;
  for (const WeightedToken& token : tokens)
    if ((sum += token.probability) > uniform) return token.id;
  return tokens.back().id;  // rounding left the sum below 1
}

}  // namespace af
