#include "core/ops/attention_segments.h"

#include <algorithm>

namespace af::attention {

void check_shapes(const Tensor& q, const Tensor& k, const Tensor& v, double scale) {
  AF_CHECK(q.shape.rank == 3 && k.shape.rank == 3 && k.shape == v.shape && q.shape[2] == k.shape[2] && k.shape[1] > 0 && q.shape[1] % k.shape[1] == 0,
           "attention: q {}, k {}, v {}", q.shape.str(), k.shape.str(), v.shape.str());
  AF_CHECK(q.dtype == k.dtype && q.dtype == v.dtype, "attention: q {}, k {}, v {}", name_of(q.dtype), name_of(k.dtype), name_of(v.dtype));
  AF_CHECK(scale > 0, "attention: scale {}", scale);
}

std::span<Segment> sorted_segments(const Context& context, std::span<const AttentionSegment> segments, std::int64_t queries, std::int64_t keys) {
  std::span<Segment> sorted = take<Segment>(context.scratch, std::int64_t(segments.size()));
  std::size_t count = 0;
  for (const AttentionSegment& s : segments) {
    AF_CHECK(0 <= s.q_begin && s.q_begin <= s.q_end && s.q_end <= queries, "attention: queries {}..{} of {}", s.q_begin, s.q_end, queries);
    AF_CHECK(0 <= s.k_begin && s.k_begin <= s.k_end && s.k_end <= keys, "attention: keys {}..{} of {}", s.k_begin, s.k_end, keys);
    const std::int64_t rows = std::min(s.q_end - s.q_begin, s.k_end - s.k_begin);
    if (rows > 0) sorted[count++] = Segment{{s.q_end - rows, s.q_end, s.k_begin, s.k_end}};
  }
  sorted = sorted.first(count);
  std::sort(sorted.begin(), sorted.end(), [](const Segment& a, const Segment& b) { return a.q_begin < b.q_begin; });
  for (std::size_t i = 1; i < count; ++i)
    AF_CHECK(sorted[i - 1].q_end <= sorted[i].q_begin, "attention: queries {}..{} and {}..{} overlap", sorted[i - 1].q_begin, sorted[i - 1].q_end,
             sorted[i].q_begin, sorted[i].q_end);
  return sorted;
}

int threads_for(const Context& context, std::span<const Segment> segments, std::int64_t heads, std::int64_t head_dim) {
  double products = 0;
  for (const Segment& s : segments) products += double(s.queries()) * (double(s.keys()) - 0.5 * double(s.queries()));
  constexpr double kProductsForThreads = 1e5;  // about as long as it takes to wake a thread
  return products * double(heads) * double(head_dim) < kProductsForThreads ? 1 : std::max(1, context.device.threads);
}

}  // namespace af::attention
