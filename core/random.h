// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC'11). A number depends on (seed, stream, index) alone, so
// that a weight is the same in every layout (design: "weights depend on seed, name and global element index only").
#pragma once
#include <array>
#include <cstdint>
#include <string_view>

#include "core/memory.h"

namespace af {

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);
std::uint64_t hash_name(std::string_view name);  // FNV-1a, 64 bits: the stream of a tensor

// Element i of the stream (seed, stream): uniform 64 bits, uniform in [0, 1), below n (unbiased), standard normal.
std::uint64_t random_bits(std::uint64_t seed, std::uint64_t stream, std::uint64_t index);
double random_uniform(std::uint64_t seed, std::uint64_t stream, std::uint64_t index);
std::uint64_t random_below(std::uint64_t seed, std::uint64_t stream, std::uint64_t index, std::uint64_t n);

// A rectangle of a tensor in global coordinates: out [R, C] (rows may be strided) = mean 0, standard deviation std, element
// (i, j) being number (row_begin + i) * global_cols + col_begin + j of the stream.
struct RandomRectangle {
  std::uint64_t seed, stream;
  std::int64_t row_begin, col_begin, global_cols;
};
void fill_normal(const Context& context, const RandomRectangle& rectangle, double std, const Tensor& out);

}  // namespace af
