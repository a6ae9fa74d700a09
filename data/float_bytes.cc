#include "data/float_bytes.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "data/safetensors.h"

namespace af {
namespace {

using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

u32 f32_of_bf16(u16 x) { return u32(x) << 16; }

u16 bf16_of_f32(u32 x) {
  const u32 rounded = (x + 0x7fffu + ((x >> 16) & 1)) >> 16;
  return u16((x & 0x7fffffffu) > 0x7f800000u ? (x >> 16) | 0x40u : rounded);  // a NaN stays one
}

// F16: 1 sign, 5 exponent (bias 15), 10 mantissa bits; F32: 8 (127), 23.
u32 f32_of_f16(u16 x) {
  const u32 sign = u32(x & 0x8000u) << 16, exponent = x >> 10 & 31u;
  u32 mantissa = x & 0x3ffu;
  if (exponent == 31) return sign | 0x7f800000u | mantissa << 13;
  if (exponent != 0) return sign | (exponent + 112) << 23 | mantissa << 13;
  if (mantissa == 0) return sign;
  u32 shift = 0;
  for (; !(mantissa & 0x400u); mantissa <<= 1) shift++;  // a denormal of F16 is a normal number of F32
  return sign | (113 - shift) << 23 | (mantissa & 0x3ffu) << 13;
}

u32 shift_right_to_nearest_even(u32 x, u32 shift) {
  if (shift > 31) return 0;
  const u32 kept = x >> shift, rest = x & ((1u << shift) - 1), half = 1u << (shift - 1);
  return kept + (rest > half || (rest == half && (kept & 1)));
}

u16 f16_of_f32(u32 x) {
  const u16 sign = u16(x >> 16 & 0x8000u);
  const u32 magnitude = x & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return u16(sign | 0x7e00u);
  if (magnitude >= 0x47800000u) return u16(sign | 0x7c00u);  // 2^16 and more
  if (magnitude < 0x38800000u) {                             // below 2^-14: a denormal, in units of 2^-24
    const u32 exponent = magnitude >> 23;
    if (exponent < 102) return sign;
    return u16(sign | shift_right_to_nearest_even((magnitude & 0x7fffffu) | 0x800000u, 126 - exponent));
  }
  return u16(sign | (shift_right_to_nearest_even(magnitude, 13) - (112u << 10)));  // the carry of rounding may reach infinity
}

// A float as F64 and back, denormals of F32 included.
u64 f64_of_f32(u32 x) {
  const u64 sign = u64(x & 0x80000000u) << 32;
  u64 exponent = x >> 23 & 255u, mantissa = x & 0x7fffffu;
  if (exponent == 255) return sign | 0x7ff0000000000000u | mantissa << 29;
  if (exponent == 0) {
    if (mantissa == 0) return sign;
    exponent = 1;
    for (; !(mantissa & 0x800000u); mantissa <<= 1) exponent--;
    mantissa &= 0x7fffffu;
  }
  return sign | (exponent + 896) << 52 | mantissa << 29;
}

u32 f32_of_f64(u64 x) {
  const u32 sign = u32(x >> 32) & 0x80000000u;
  const u64 magnitude = x & 0x7fffffffffffffffu;
  if (magnitude > 0x7ff0000000000000u) return sign | 0x7fc00000u;
  if (magnitude >= 0x47f0000000000000u) return sign | 0x7f800000u;  // 2^128 and more
  const auto nearest_even = [](u64 value, u64 shift) {
    const u64 kept = value >> shift, rest = value & ((u64(1) << shift) - 1), half = u64(1) << (shift - 1);
    return u32(kept + (rest > half || (rest == half && (kept & 1))));
  };
  if (magnitude < 0x3810000000000000u) {  // below 2^-126: a denormal, in units of 2^-149
    const u64 exponent = magnitude >> 52;
    if (exponent < 873) return sign;
    return sign | nearest_even((magnitude & 0xfffffffffffffu) | 0x10000000000000u, 926 - exponent);
  }
  return sign | (nearest_even(magnitude, 29) - (896u << 23));
}

template <class From, class To, To (*convert)(From)>
void convert_all(const void* from, void* to, std::int64_t n) {
  const From* in = static_cast<const From*>(from);
  To* out = static_cast<To*>(to);
  for (std::int64_t i = 0; i < n; i++) out[i] = convert(in[i]);
}

void to_f32(const std::string& type, const void* from, void* to, std::int64_t n) {
  if (type == "F32") return void(std::memcpy(to, from, std::size_t(n) * 4));
  if (type == "BF16") return convert_all<u16, u32, f32_of_bf16>(from, to, n);
  if (type == "F16") return convert_all<u16, u32, f32_of_f16>(from, to, n);
  if (type == "F64") return convert_all<u64, u32, f32_of_f64>(from, to, n);
  AF_CHECK(false, "{} is no floating-point type of a file", type);
}

void from_f32(const void* from, const std::string& type, void* to, std::int64_t n) {
  if (type == "F32") return void(std::memcpy(to, from, std::size_t(n) * 4));
  if (type == "BF16") return convert_all<u32, u16, bf16_of_f32>(from, to, n);
  if (type == "F16") return convert_all<u32, u16, f16_of_f32>(from, to, n);
  if (type == "F64") return convert_all<u32, u64, f64_of_f32>(from, to, n);
  AF_CHECK(false, "{} is no floating-point type of a file", type);
}

template <class Bits>
std::int64_t first_with_exponent(const void* data, std::int64_t n, Bits exponent) {
  const Bits* x = static_cast<const Bits*>(data);
  constexpr std::int64_t kBlock = 4096;  // whole blocks are looked at without a branch
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const std::int64_t end = std::min(n, begin + kBlock);
    bool any = false;
    for (std::int64_t i = begin; i < end; i++) any |= (x[i] & exponent) == exponent;
    if (!any) continue;
    for (std::int64_t i = begin; i < end; i++)
      if ((x[i] & exponent) == exponent) return i;
  }
  return -1;
}

}  // namespace

bool is_float_type(const std::string& type) { return type == "F32" || type == "BF16" || type == "F16" || type == "F64"; }

void convert_floats(const std::string& from_type, const void* from, const std::string& to_type, void* to, std::int64_t n) {
  if (from_type == to_type) {
    std::memcpy(to, from, std::size_t(n) * safetensors_size_of(from_type));
  } else if (from_type == "F32") {
    from_f32(from, to_type, to, n);
  } else if (to_type == "F32") {
    to_f32(from_type, from, to, n);
  } else {
    constexpr std::int64_t kBlock = 1024;
    u32 block[kBlock];
    const char* in = static_cast<const char*>(from);
    char* out = static_cast<char*>(to);
    for (std::int64_t begin = 0; begin < n; begin += kBlock) {
      const std::int64_t count = std::min(kBlock, n - begin);
      to_f32(from_type, in + begin * std::int64_t(safetensors_size_of(from_type)), block, count);
      from_f32(block, to_type, out + begin * std::int64_t(safetensors_size_of(to_type)), count);
    }
  }
}

std::int64_t first_not_finite(const std::string& type, const void* data, std::int64_t n) {
  if (type == "F32") return first_with_exponent<u32>(data, n, 0x7f800000u);
  if (type == "BF16") return first_with_exponent<u16>(data, n, 0x7f80u);
  if (type == "F16") return first_with_exponent<u16>(data, n, 0x7c00u);
  if (type == "F64") return first_with_exponent<u64>(data, n, 0x7ff0000000000000u);
  AF_CHECK(false, "{} is no floating-point type of a file", type);
  return -1;
}

}  // namespace af
