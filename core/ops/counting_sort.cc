#include "core/ops/counting_sort.h"

namespace af {
namespace {
struct Count {
  CountingSort s;
  template <class Team>
  AF_HD void operator()(i64 chunk, Team team) const {
    const Row<std::int32_t> row{s.counts + chunk * s.buckets, s.buckets};
    team.map(
        row, [](int) { return std::int32_t(0); }, Index{});
    team.barrier();
    const CountingSort sort = s;
    team.once([=] {
      for (i64 i = chunk * sort.size; i < sort.end(chunk); ++i) ++row.p[sort.bucket(i)];
    });
  }
};
struct SumOverChunks {  // of a bucket; its total goes to offsets[bucket + 1]
  CountingSort s;
  AF_HD void operator()(i64 bucket) const {
    std::int32_t before = 0;
    for (i64 c = 0; c < s.chunks; ++c) {
      std::int32_t& count = s.counts[c * s.buckets + bucket];
      const std::int32_t here = count;
      count = before;
      before += here;
    }
    s.offsets[bucket + 1] = before;
  }
};
struct SumOverBuckets {
  CountingSort s;
  template <class Team>
  AF_HD void operator()(i64, Team team) const {
    const CountingSort sort = s;
    team.once([=] {
      sort.offsets[0] = 0;
      for (i64 b = 0; b < sort.buckets; ++b) sort.offsets[b + 1] += sort.offsets[b];
    });
  }
};
struct Place {
  CountingSort s;
  template <class Team>
  AF_HD void operator()(i64 chunk, Team team) const {
    const CountingSort sort = s;
    team.once([=] {
      for (i64 i = chunk * sort.size; i < sort.end(chunk); ++i) {
        const i64 b = sort.bucket(i);
        const i64 at = sort.offsets[b] + sort.counts[chunk * sort.buckets + b]++;
        sort.order[at] = std::int32_t(i);
        if (sort.inverse) sort.inverse[i] = std::int32_t(at);
      }
    });
  }
};
}  // namespace

CountingSort counting_sort(const Context& context, const Tensor& keys, i64 buckets, const Tensor& order, const Tensor& inverse) {
  CountingSort s{};
  s.n = keys.numel();
  s.buckets = buckets;
  s.size = std::max<i64>(512, 2 * buckets);
  s.chunks = (s.n + s.size - 1) / s.size;
  s.keys = pointer_or_null<const std::int32_t>(keys);
  s.order = order.as<std::int32_t>();
  s.inverse = pointer_or_null<std::int32_t>(inverse);
  s.counts = context.scratch.tensor({s.chunks, buckets}, DType::i32).as<std::int32_t>();
  s.offsets = context.scratch.tensor({buckets + 1}, DType::i64).as<i64>();
  for_each_row(context.device, s.chunks, 1, Count{s}, s.size);
  for_each(context.device, buckets, SumOverChunks{s});
  for_each_row(context.device, 1, 1, SumOverBuckets{s});
  for_each_row(context.device, s.chunks, 1, Place{s}, s.size);
  return s;
}

}  // namespace af
