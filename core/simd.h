// Vectors of numbers for the CPU's hand-written kernels (matmul, attention): GCC vector extensions, as wide as the
// compiler's target has registers. The only file that knows the instruction set.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>

namespace af::simd {

// The matmul micro-kernel's accumulators fill the register file, less the operands: rows_of(v) rows of v vectors.
#if defined(__AVX512F__)
inline constexpr int kBytes = 64, kVectors = 3, kAccumulators = 24;  // 32 registers
inline constexpr bool kFast = true;
#elif defined(__AVX2__) && defined(__FMA__)
inline constexpr int kBytes = 32, kVectors = 2, kAccumulators = 12;  // 16 registers
inline constexpr bool kFast = true;
#else
inline constexpr int kBytes = 16, kVectors = 2, kAccumulators = 12;
inline constexpr bool kFast = false;  // a library knows this machine better than we do
#endif

constexpr int rows_of(int vectors) { return vectors == 1 ? kAccumulators * 2 / 3 : kAccumulators / vectors; }
inline constexpr int kRows = rows_of(kVectors);

template <class T>
struct Types;
template <>
struct Types<float> {
  typedef float Vector __attribute__((vector_size(kBytes)));
  typedef std::int32_t Mask __attribute__((vector_size(kBytes)));
  typedef std::uint32_t Bits __attribute__((vector_size(kBytes)));
};
template <>
struct Types<double> {
  typedef double Vector __attribute__((vector_size(kBytes)));
  typedef std::int64_t Mask __attribute__((vector_size(kBytes)));
  typedef std::uint64_t Bits __attribute__((vector_size(kBytes)));
};
template <class T>
using Vector = typename Types<T>::Vector;
template <class T>
using Mask = typename Types<T>::Mask;  // per lane 0 or -1

template <class T>
inline constexpr int kLanes = kBytes / int(sizeof(T));

// n rounded up to whole vectors.
template <class T>
constexpr std::int64_t padded(std::int64_t n) {
  return (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

using bf16_bits = std::uint16_t;  // a bf16 in memory: the upper half of a float
inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(bf16_bits x) { return std::bit_cast<float>(std::uint32_t(x) << 16); }
template <class S>
S narrow(auto x) {
  if constexpr (sizeof(S) == 2) {  // round to nearest even; a NaN stays one
    std::uint32_t bits = std::bit_cast<std::uint32_t>(float(x));
    return S(x != x ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  } else {
    return S(x);
  }
}

// Any address: no alignment is asked for.
template <class T>
inline Vector<T> load(const T* p) {
  Vector<T> v;
  std::memcpy(&v, p, kBytes);
  return v;
}
inline Vector<float> load(const bf16_bits* p) {
  typedef bf16_bits Half __attribute__((vector_size(kBytes / 2)));
  using Bits = Types<float>::Bits;
  Half half;
  std::memcpy(&half, p, kBytes / 2);
  Bits bits = __builtin_convertvector(half, Bits) << 16;
  return Vector<float>(bits);
}
template <class T>
inline void store(T* p, Vector<T> v) {
  std::memcpy(p, &v, kBytes);
}
inline void store(bf16_bits* p, Vector<float> v) {
  typedef bf16_bits Half __attribute__((vector_size(kBytes / 2)));
  using Bits = Types<float>::Bits;
  Bits bits = Bits(v), rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, nan = bits >> 16 | 0x40;
  Half half = __builtin_convertvector(Bits(v != v ? nan : rounded), Half);
  std::memcpy(p, &half, kBytes / 2);
}
// The first n lanes; the others are zero and untouched in memory. 0 <= n <= lanes.
template <class S>
inline auto load_first(const S* p, int n) {
  S lanes[sizeof(load(p)) / sizeof(widen(*p))] = {};
  std::memcpy(lanes, p, n * sizeof(S));
  return load(lanes);
}
template <class S, class V>
inline void store_first(S* p, V v, int n) {
  S lanes[sizeof(V) / sizeof(widen(*p))];
  store(lanes, v);
  std::memcpy(p, lanes, n * sizeof(S));
}

template <class T>
inline Vector<T> splat(T x) {
  return x - Vector<T>{};  // x - 0 keeps every value, -0 included
}
template <class T>
inline Mask<T> lane_numbers() {
  Mask<T> m;
  for (int i = 0; i < kLanes<T>; ++i) m[i] = i;
  return m;
}
template <class T>
inline Mask<T> first_lanes(std::int64_t n) {  // -1 in the first n
  return lane_numbers<T>() < decltype(Mask<T>{}[0] + 0)(n);
}

template <class T>
inline T sum(Vector<T> v) {  // pairwise
#pragma GCC unroll 4
  for (int width = kLanes<T> / 2; width; width /= 2) v += __builtin_shuffle(v, lane_numbers<T>() ^ width);
  return v[0];
}
template <class T>
inline T maximum(Vector<T> v) {
#pragma GCC unroll 4
  for (int width = kLanes<T> / 2; width; width /= 2) {
    Vector<T> other = __builtin_shuffle(v, lane_numbers<T>() ^ width);
    v = v > other ? v : other;
  }
  return v[0];
}

// r[i][j] <-> r[j][i] of a square of kLanes vectors, by exchanging ever larger off-diagonal blocks.
template <class T, std::size_t... I>
inline void exchange(Vector<T>& a, Vector<T>& b, int step) {
  Mask<T> lane = lane_numbers<T>(), high = (lane & step) != 0;
  Vector<T> first = __builtin_shuffle(a, b, high ? lane - step + kLanes<T> : lane);
  b = __builtin_shuffle(a, b, high ? lane + kLanes<T> : lane + step);
  a = first;
}
template <class T>
inline void transpose(Vector<T> (&r)[kLanes<T>]) {
#pragma GCC unroll 4
  for (int step = 1; step < kLanes<T>; step *= 2)
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i)
      if (!(i & step)) exchange<T>(r[i], r[i + step], step);
}

// 2^x, relative error below 1.1e-7 (fp32) or 3e-16 (fp64); 0 where the result would be subnormal (-inf included), NaN for NaN.
// Formula: x = n + f with n whole and |f| <= 1/2; 2^f by its Taylor series, whose n-th term is (f ln 2)^n / n!.
template <class T>
inline Vector<T> exp2(Vector<T> x) {
  constexpr bool single = sizeof(T) == 4;
  constexpr T kShift = single ? T(0x1.8p23) : T(0x1.8p52);  // adding it leaves the whole part in the low bits
  constexpr int kFraction = single ? 23 : 52, kDegree = single ? 7 : 13;
  constexpr T kLeast = single ? T(-126) : T(-1022);
  constexpr double ln2 = 0.693147180559945309417232;
  Vector<T> shifted = x + kShift, f = x - (shifted - kShift);
  double factor[kDegree + 1] = {1};
  for (int i = 1; i <= kDegree; ++i) factor[i] = factor[i - 1] * ln2 / i;
  Vector<T> y = splat(T(factor[kDegree]));
#pragma GCC unroll 16
  for (int i = kDegree - 1; i >= 0; --i) y = y * f + T(factor[i]);
  using Bits = typename Types<T>::Bits;
  Vector<T> scaled = Vector<T>(Bits(y) + (Bits(shifted) << kFraction));
  return x < kLeast ? Vector<T>{} : scaled;
}

}  // namespace af::simd
