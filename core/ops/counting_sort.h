// A stable counting sort of n small integers, in parallel and the same for any number of threads: the permutation of
// tokens to experts, and the grouping of tokens by table row. For .cc files of core/ops.
#pragma once
#include "core/kernel.h"
#include "core/memory.h"

namespace af {

struct CountingSort {
  i64 n, buckets;
  i64 size, chunks;  // keys are cut into chunks of `size`
  const std::int32_t* keys;
  std::int32_t* counts;   // [chunks, buckets]: first how many, then how many in the chunks before
  i64* offsets;           // [buckets + 1]: where a bucket begins
  std::int32_t* order;    // [n]: the keys' indices, sorted
  std::int32_t* inverse;  // [n] or null: where an index went

  // The bucket of keys[i]: keys may exceed the number of buckets.
  AF_HD i64 bucket(i64 i) const { return keys[i] % buckets; }
  AF_HD i64 end(i64 chunk) const { return (chunk + 1) * size < n ? (chunk + 1) * size : n; }
};

// order, inverse and offsets in device memory; scratch from the context, freed by the caller's scope.
CountingSort counting_sort(const Context& context, const Tensor& keys, i64 buckets, const Tensor& order, const Tensor& inverse);

}  // namespace af
