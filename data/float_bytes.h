// Floating-point numbers as safetensors files hold them (F64, F32, BF16, F16), converted by integer arithmetic: bits do
// not depend on the processor's modes (the trainer flushes denormals to zero), and what fits is exact.
#pragma once
#include <cstdint>
#include <string>

namespace af {

bool is_float_type(const std::string& type);
// n numbers of one type as another, rounded to nearest, ties to even. F16 overflows to infinity. The same type: a copy.
void convert_floats(const std::string& from_type, const void* from, const std::string& to_type, void* to, std::int64_t n);
// Index of the first NaN or infinity, -1 where all are finite.
std::int64_t first_not_finite(const std::string& type, const void* data, std::int64_t n);

}  // namespace af
