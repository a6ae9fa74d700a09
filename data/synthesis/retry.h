// When a request that failed is sent again.
#pragma once
#include <cstdint>

namespace af {

inline constexpr double kLongestBackOff = 60, kLongestRetryAfter = 600;  // seconds

// Seconds before attempt `retry` + 1 (retry = 1, 2, ...):
//   b = min(first * 2^(retry - 1), kLongestBackOff), wait = b (1/2 + u/2), u uniform in [0, 1)
// and at least retry_after (1 + u/10), retry_after being what the server asks for, at most kLongestRetryAfter. u depends on seed and retry
// alone: requests that failed together do not come back together, and a run can be repeated.
double wait_before_retry(double first, int retry, double retry_after, std::uint64_t seed);

// Whether the same request may succeed later: 408 request timeout, 409 conflict, 425 too early, 429 too many requests, 5xx.
bool is_passing_status(int status);

}  // namespace af
