// From logits to the next token, as transformers' generate() does it: repetition penalty, temperature, top-p, in this order
// (RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace af {

struct SamplingSettings {
  double temperature = 0;         // 0: the most likely token (the first of equals)
  double top_p = 1;               // the fewest most likely tokens that have this probability together, at least one; above 0
  double repetition_penalty = 1;  // logits of tokens that occurred are divided by it where above 0, multiplied where below
};

// A token of those that may be drawn.
struct WeightedToken {
  std::int32_t id;
  double probability;
};
// The most likely first (equals by id), their probabilities adding up to 1. logits [V]; before: the sequence so far, prompt included.
std::vector<WeightedToken> distribution(std::span<const float> logits, std::span<const std::int32_t> before, const SamplingSettings& settings);
// The token where `uniform`, in [0, 1), falls.
std::int32_t draw(std::span<const WeightedToken> tokens, double uniform);

}  // namespace af
