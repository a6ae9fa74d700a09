#include "data/synthesis/token_usage.h"

#include <fmt/core.h>

#include <algorithm>

namespace af {
namespace {

std::string row(const std::string& name, std::size_t width, const TokenUsage& u) {
  return fmt::format("{:<{}}  {:>9}  {:>12}  {:>7}  {:>7}  {:>11}  {:>7}  {:>13}  {:>17}\n", name, width, u.answers, u.from_journal, u.retries,
                     u.refused, u.unavailable, u.length_limited, u.prompt_tokens, u.completion_tokens);
}

}  // namespace

TokenUsage& TokenUsage::operator+=(const TokenUsage& other) {
  answers += other.answers, from_journal += other.from_journal;
  retries += other.retries, refused += other.refused, unavailable += other.unavailable;
  length_limited += other.length_limited;
  prompt_tokens += other.prompt_tokens, completion_tokens += other.completion_tokens;
  return *this;
}

std::string usage_table(const UsageByPurpose& usage) {
  std::size_t width = 7;
  for (const auto& [purpose, one] : usage) width = std::max(width, purpose.size());
  std::string text = fmt::format("{:<{}}  {:>9}  {:>12}  {:>7}  {:>7}  {:>11}  {:>7}  {:>13}  {:>17}\n", "purpose", width, "answers", "from journal",
                                 "retries", "refused", "unavailable", "cut off", "prompt tokens", "completion tokens");
  TokenUsage sum;
  for (const auto& [purpose, one] : usage) text += row(purpose, width, one), sum += one;
  return text + row("all", width, sum);
}

}  // namespace af
