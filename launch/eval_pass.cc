#include "launch/eval_pass.h"

#include <cmath>

#include "core/error.h"

namespace af {

double pass_at(std::int64_t k, std::int64_t n, std::int64_t c) {
  AF_CHECK(1 <= k && k <= n && 0 <= c && c <= n, "pass@{} of {} attempts, {} right", k, n, c);
  if (n - c < k) return 1;
  double none = 1;  // C(n - c, k) / C(n, k) = prod_{i = n - c + 1}^{n} (1 - k / i)
  for (std::int64_t i = n - c + 1; i <= n; ++i) none *= 1 - double(k) / double(i);
  return 1 - none;
}

MeanOfQuestions mean_of(const std::vector<double>& values) {
  const double n = double(values.size());
  double sum = 0, squares = 0;
  for (const double value : values) sum += value;
  for (const double value : values) squares += (value - sum / n) * (value - sum / n);
  return {sum / n, n > 1 ? std::sqrt(squares / (n - 1) / n) : 0};
}

}  // namespace af
