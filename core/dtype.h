// Element types of tensors.
#pragma once
#include <cstddef>
#include <cstdint>

namespace af {

enum class DType : std::uint8_t { f32, bf16, f64, i32, i64 };

constexpr std::size_t size_of(DType dtype) {
  return dtype == DType::bf16 ? 2 : dtype == DType::f32 || dtype == DType::i32 ? 4 : 8;
}
constexpr const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return "float32";
    case DType::bf16: return "bfloat16";
    case DType::f64: return "float64";
    case DType::i32: return "int32";
    case DType::i64: return "int64";
  }
  return "?";
}
constexpr bool is_float(DType dtype) { return dtype <= DType::f64; }

struct bf16;                              // core/kernel.h
template <class T> struct dtype_of;       // dtype_of<float>::value == DType::f32
template <> struct dtype_of<float> { static constexpr DType value = DType::f32; };
template <> struct dtype_of<bf16> { static constexpr DType value = DType::bf16; };
template <> struct dtype_of<double> { static constexpr DType value = DType::f64; };
template <> struct dtype_of<std::int32_t> { static constexpr DType value = DType::i32; };
template <> struct dtype_of<std::int64_t> { static constexpr DType value = DType::i64; };

// The type in which sums over T are carried, and that of losses, row statistics and gradients of weights.
constexpr DType accumulator_of(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

}  // namespace af
