// Sums of ranks' parts, always in rank order and in the accumulator type: the order that makes results the same bits everywhere.
#pragma once
#include <cstdint>
#include <span>

#include "parallel/comm.h"

namespace af::comm {

// out[i] = sources[0][i] + sources[1][i] + ..., or the greatest (NaN if any is). bf16 is summed in fp32 and rounded once.
// out may be one of the sources.
void reduce(DType dtype, Reduction reduction, std::span<const void* const> sources, void* out, std::int64_t elements);

}  // namespace af::comm
