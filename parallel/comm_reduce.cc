#include "parallel/comm_reduce.h"

#include <algorithm>

#include "core/kernel.h"

namespace af::comm {
namespace {

template <class T>
void reduce_of(Reduction reduction, std::span<const void* const> sources, T* out, std::int64_t elements) {
  constexpr std::int64_t kBlock = 1024;  // the accumulators of a block stay in the first-level cache
  Acc<T> sum[kBlock];
  for (std::int64_t begin = 0; begin < elements; begin += kBlock) {
    const std::int64_t n = std::min(kBlock, elements - begin);
    const T* first = static_cast<const T*>(sources[0]) + begin;
    for (std::int64_t i = 0; i < n; ++i) sum[i] = first[i];
    for (const void* source : sources.subspan(1)) {
      const T* x = static_cast<const T*>(source) + begin;
      if (reduction == Reduction::sum) {
        for (std::int64_t i = 0; i < n; ++i) sum[i] += Acc<T>(x[i]);
      } else {
        for (std::int64_t i = 0; i < n; ++i) {
          const Acc<T> v = x[i];
          sum[i] = v > sum[i] || v != v ? v : sum[i];
        }
      }
    }
    for (std::int64_t i = 0; i < n; ++i) out[begin + i] = T(sum[i]);
  }
}

}  // namespace

void reduce(DType dtype, Reduction reduction, std::span<const void* const> sources, void* out, std::int64_t elements) {
  switch (dtype) {
    case DType::f32:
      return reduce_of(reduction, sources, static_cast<float*>(out), elements);
    case DType::bf16:
      return reduce_of(reduction, sources, static_cast<bf16*>(out), elements);
    case DType::f64:
      return reduce_of(reduction, sources, static_cast<double*>(out), elements);
    case DType::i32:
      return reduce_of(reduction, sources, static_cast<std::int32_t*>(out), elements);
    case DType::i64:
      return reduce_of(reduction, sources, static_cast<std::int64_t*>(out), elements);
  }
}

}  // namespace af::comm
