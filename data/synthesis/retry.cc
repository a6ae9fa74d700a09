#include "data/synthesis/retry.h"

#include <algorithm>
#include <cmath>

#include "core/random.h"

namespace af {

double wait_before_retry(double first, int retry, double retry_after, std::uint64_t seed) {
  const double u = random_uniform(seed, hash_name("retry"), std::uint64_t(retry));
  const double back_off = std::min(std::ldexp(first, std::min(retry - 1, 100)), kLongestBackOff) * (0.5 + 0.5 * u);
  return std::max(back_off, std::min(retry_after, kLongestRetryAfter) * (1 + 0.1 * u));
}

bool is_passing_status(int status) { return status == 408 || status == 409 || status == 425 || status == 429 || status >= 500; }

}  // namespace af
