// What a teacher's answers cost, by the purpose of the requests.
#pragma once
#include <cstdint>
#include <map>
#include <string>

namespace af {

struct TokenUsage {
  std::int64_t answers = 0, from_journal = 0;              // answered now; before, by a run that this one goes on from
  std::int64_t retries = 0, refused = 0, unavailable = 0;  // attempts beyond the first; requests without an answer
  std::int64_t length_limited = 0;                         // of `answers`
  std::int64_t prompt_tokens = 0, completion_tokens = 0;   // of `answers`, as the server counts them (0 where it does not)
  TokenUsage& operator+=(const TokenUsage& other);
  bool operator==(const TokenUsage&) const = default;
};

using UsageByPurpose = std::map<std::string, TokenUsage>;

// A line for each purpose and one for all, for people.
std::string usage_table(const UsageByPurpose& usage);

}  // namespace af
