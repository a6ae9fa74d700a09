// One source, every machine. A kernel is a functor over rows, and a *team* executes one row: on the CPU a team is one
// OpenMP thread (its lanes are those of the vector unit), with CUDA a warp or a block. The functor never touches memory
// by index: it hands whole rows to the team (zip style), so that the CPU loop vectorises and CUDA moves 16-byte packs.
//
//   template <class T> struct Scale {
//     Rows<T> x; Acc<T> factor;
//     template <class Team> AF_HD void operator()(i64 r, Team team) const {
//       auto f = factor;
//       team.map(x[r], [=](auto v) { return f * v; }, x[r]);
//     }
//   };
//   for_each_row(context.device, x.rows(), x.cols(), Scale<float>{rows_of<float>(x), 2.f});
//
// A team offers map, copy, sum, max, add_rows, once and barrier. Sums run over a fixed number of lanes, so that a row has
// the same bits whatever its address, the number of rows and the number of threads are. This is the only file that knows
// which compiler reads it: g++ or clang (CPU), nvcc (CPU and CUDA), or g++ with tests/core/simt.h (CUDA emulated).
#pragma once
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/device.h"
#include "core/tensor.h"

#if defined(__CUDACC__) || defined(AF_SIMT)
#define AF_CUDA 1
#endif
#if defined(__CUDACC__)
#define AF_HD __host__ __device__ __forceinline__
#define AF_INDEPENDENT
#define AF_UNROLL _Pragma("unroll")
#elif defined(__clang__)
#define AF_HD inline __attribute__((always_inline))
#define AF_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#define AF_UNROLL _Pragma("clang loop unroll(full)")
#else
#define AF_HD inline __attribute__((always_inline))
#define AF_INDEPENDENT _Pragma("GCC ivdep")  // not `omp simd`: that keeps every lane's temporaries in memory
#define AF_UNROLL _Pragma("GCC unroll 16")
#endif

namespace af {
using i64 = std::int64_t;

// ---------------------------------------------------------------------------------------------- numbers
template <class To, class From>
AF_HD To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

struct bf16 {  // for storage; arithmetic happens in float
  std::uint16_t raw;
  bf16() = default;
  AF_HD bf16(float f) {
#if defined(__CUDA_ARCH__)
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(raw) : "f"(f));
#else
    const auto u = bits<std::uint32_t>(f);
    const auto rounded = (u + 0x7fffu + ((u >> 16) & 1)) >> 16;  // to nearest, ties to even
    raw = std::uint16_t((u & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : rounded);
#endif
  }
  AF_HD operator float() const { return bits<float>(std::uint32_t(raw) << 16); }
};

// What a T is computed in: float for bf16, T itself otherwise.
template <class T>
using Acc = std::conditional_t<std::is_same_v<std::remove_const_t<T>, bf16>, float, std::remove_const_t<T>>;

// e^x to 1e-7 for |x| < 87, beyond that clamped; NaN stays NaN. Branch-free, the same on every machine.
AF_HD float exponential(float x) {
  float y = x < -87.f ? -87.f : x;
  y = y > 88.f ? 88.f : y;
  const float t = y * 1.44269504f + 12582912.f;  // 1.5 * 2^23: the low mantissa bits now hold k = round(x / ln 2)
  const float k = t - 12582912.f;
  const float r = (y - k * 0.693359375f) + k * 2.12194440e-4f;
  const float p = 1.f + r * (1.f + r * (0.49999994f + r * (0.166665092f + r * (0.0416685268f + r * (0.00837013498f + r * 0.00138116628f)))));
  const float e = bits<float>(bits<std::int32_t>(p) + (bits<std::int32_t>(t) << 23));
  return x == x ? e : x;
}
AF_HD double exponential(double x) { return ::exp(x); }
template <class A>
AF_HD A sigmoid(A x) {
  return A(1) / (A(1) + exponential(-x));
}
// cos(2 pi u) for u in [0, 1), to 1e-15: with u = h / 2 + v, |v| <= 1/4, it is (-1)^h (1 - 2 sin^2(pi v)). Every fma is
// written out, so that it is the same bits everywhere.
AF_HD double cos_turns(double u) {
  const double h = u < 0.25 ? 0. : u < 0.75 ? 0.5 : 1.;
  const double x = 3.14159265358979324 * (u - h), q = x * x;
  double sum = 1. / 355687428096000;  // x^17 / 17!, and so on down
  sum = fma(sum, q, -1. / 1307674368000);
  sum = fma(sum, q, 1. / 6227020800);
  sum = fma(sum, q, -1. / 39916800);
  sum = fma(sum, q, 1. / 362880);
  sum = fma(sum, q, -1. / 5040);
  sum = fma(sum, q, 1. / 120);
  sum = fma(sum, q, -1. / 6);
  const double sine = fma(x * q, sum, x);
  const double cosine = fma(-2 * sine, sine, 1.);
  return h == 0.5 ? -cosine : cosine;
}

AF_HD float logarithm(float x) { return ::logf(x); }
AF_HD double logarithm(double x) { return ::log(x); }
AF_HD float root(float x) { return ::sqrtf(x); }
AF_HD double root(double x) { return ::sqrt(x); }

template <class T>
AF_HD constexpr T lowest() {  // -infinity, or the least int
  if constexpr (std::is_same_v<T, int>) {
    return INT_MIN;
  } else {
    return -HUGE_VAL;
  }
}

// f(Type<T>{}) for the float type that dtype names.
template <class T>
struct Type {
  using type = T;
};
template <class F>
void dispatch(DType dtype, F f) {
  AF_CHECK(is_float(dtype), "a {} tensor where a floating-point one is needed", name_of(dtype));
  if (dtype == DType::f32) return f(Type<float>{});
  if (dtype == DType::bf16) return f(Type<bf16>{});
  f(Type<double>{});
}
template <class F>
void dispatch_accumulator(DType dtype, F f) {  // float or double
  AF_CHECK(is_float(dtype) && dtype == accumulator_of(dtype), "a {} tensor where float32 or float64 is needed", name_of(dtype));
  if (dtype == DType::f32) return f(Type<float>{});
  f(Type<double>{});
}

// ------------------------------------------------------------------------------- rows: inputs and outputs
constexpr int kPack = 8;  // values that one CUDA thread moves at once: 16 bytes of bf16
template <class T>
struct Pack {
  alignas(16) T v[kPack];
  AF_HD Acc<T> operator[](int j) const { return v[j]; }
};
template <class T>
struct Row {
  T* p;
  i64 n;
  AF_HD Acc<T> operator[](i64 i) const { return p[i]; }
  AF_HD bool aligned() const { return bits<std::uintptr_t>(p) % 16 == 0; }
  AF_HD Row part(i64 from, i64 count) const { return {p + from, count}; }
  AF_HD auto load(i64 i) const { return *reinterpret_cast<const Pack<std::remove_const_t<T>>*>(p + i); }
};
struct Index {  // an input: 0, 1, 2, ...
  struct At {
    int first;
    AF_HD int operator[](int j) const { return first + j; }
  };
  AF_HD int operator[](i64 i) const { return int(i); }
  AF_HD bool aligned() const { return true; }
  AF_HD At load(i64 i) const { return {int(i)}; }
};
struct Zero {  // an input: 0, 0, 0, ...
  AF_HD int operator[](i64) const { return 0; }
  AF_HD bool aligned() const { return true; }
  AF_HD Zero load(i64) const { return {}; }
};
template <class T>
struct Rows {
  T* p;
  i64 cols, stride;
  i64 n;  // elements in all: the last row may be shorter
  AF_HD Row<T> operator[](i64 r) const { return {p + r * stride, n - r * cols < cols ? n - r * cols : cols}; }
};
template <class T>
Rows<T> rows_of(const Tensor& t) {
  return {t.as<T>(), t.cols(), t.stride, t.numel()};
}
template <class T>
Row<T> row_of(const Tensor& t) {  // a vector
  AF_CHECK(t.contiguous(), "a vector is needed, not a strided {}", t.shape.str());
  return {t.as<T>(), t.numel()};
}
template <class T>
T* pointer_or_null(const Tensor& t) {
  AF_CHECK(t.contiguous(), "a contiguous tensor is needed, not a strided {}", t.shape.str());
  return t.empty() ? nullptr : t.as<T>();
}

template <class A, int N>
struct Vals {  // what a map with several outputs returns
  A v[N];
};
template <class A, class... B>
AF_HD Vals<A, 1 + sizeof...(B)> vals(A a, B... b) {
  return {{a, A(b)...}};
}
template <int k, class A>
AF_HD A pick(A a) {
  return a;
}
template <int k, class A, int N>
AF_HD A pick(const Vals<A, N>& v) {
  return v.v[k];
}
template <class T, class... Rest>
struct Outs {
  Row<T> head;
  Outs<Rest...> tail;
  i64 n;
  AF_HD bool aligned() const { return head.aligned() && tail.aligned(); }
};
template <class T>
struct Outs<T> {
  Row<T> head;
  i64 n;
  AF_HD bool aligned() const { return head.aligned(); }
};
template <class T>
AF_HD Outs<T> outs(Row<T> a) {
  return {a, a.n};
}
template <class T, class... R>
AF_HD Outs<T, R...> outs(Row<T> a, Row<R>... b) {
  return {a, outs(b...), a.n};
}
template <int k = 0, class T, class... R, class V>
AF_HD void put(const Outs<T, R...>& out, i64 i, const V& v) {
  out.head.p[i] = T(pick<k>(v));
  if constexpr (sizeof...(R) > 0) put<k + 1>(out.tail, i, v);
}

template <class Self>
struct Reductions {  // of the values f(in[i]...), the same bits for every member of the team
  template <class F, class... X>
  AF_HD auto sum(F f, X... in) const {
    using R = decltype(f(in[0]...));
    return self().reduce(
        R(0), [](R a, R b) { return a + b; }, f, in...);
  }
  template <class F, class... X>
  AF_HD auto max(F f, X... in) const {
    using R = decltype(f(in[0]...));
    return self().reduce(
        lowest<R>(), [](R a, R b) { return a < b ? b : a; }, f, in...);
  }

 private:
  AF_HD const Self& self() const { return static_cast<const Self&>(*this); }
};

// -------------------------------------------------------------------------------------------------- CPU
struct Thread : Reductions<Thread> {
  static constexpr i64 lanes = 32;   // of a sum: fixed, so that its order depends on the length alone
  static constexpr i64 block = 128;  // columns that add_rows keeps in the nearest cache

  // out[i] = f(in[i]...); several outputs: outs(a, b) and f returning vals(a, b). Outputs may be inputs.
  template <class... T, class F, class... X>
  AF_HD void map(Outs<T...> out, F f, X... in) const {
    AF_INDEPENDENT
    for (i64 i = 0; i < out.n; ++i) put(out, i, f(in[i]...));
  }
  template <class T, class F, class... X>
  AF_HD void map(Row<T> out, F f, X... in) const {
    map(outs(out), f, in...);
  }
  template <class T, class S>
  AF_HD void copy(Row<T> out, Row<S> in) const {  // of one type: the bits
    AF_INDEPENDENT
    for (i64 i = 0; i < out.n; ++i) out.p[i] = in.p[i];
  }
  template <class R, class Op, class F, class X0, class... X>
  AF_HD R reduce(R start, Op op, F f, X0 first, X... in) const {
    R a[lanes];
    for (i64 l = 0; l < lanes; ++l) a[l] = start;
    i64 i = 0;
    for (; i + lanes <= first.n; i += lanes) {
      for (i64 l = 0; l < lanes; ++l) a[l] = op(a[l], f(first[i + l], in[i + l]...));
    }
    for (i64 l = 0; i + l < first.n; ++l) a[l] = op(a[l], f(first[i + l], in[i + l]...));
    for (i64 width = lanes / 2; width > 0; width /= 2)
      for (i64 l = 0; l < width; ++l) a[l] = op(a[l], a[l + width]);
    return a[0];
  }
  // out[i] = base[i] + in(0)[i] + in(1)[i] + ... + in(count - 1)[i], rounded once; base may be out.
  template <class T, class B, class F>
  AF_HD void add_rows(Row<T> out, B base, i64 count, F in) const {
    for (i64 from = 0; from < out.n; from += block) {
      const i64 width = out.n - from < block ? out.n - from : block;
      Acc<T> a[block];
      for (i64 l = 0; l < width; ++l) a[l] = base[from + l];
      for (i64 j = 0; j < count; ++j) {
        const auto row = in(j);
        for (i64 l = 0; l < width; ++l) a[l] += row[from + l];
      }
      for (i64 l = 0; l < width; ++l) out.p[from + l] = T(a[l]);
    }
  }
  template <class F>
  AF_HD void once(F f) const {  // one member of the team does it
    f();
  }
  AF_HD void barrier() const {}  // what members wrote before, all see after
};

// ------------------------------------------------------------------------------------------------- CUDA
#if defined(AF_CUDA)
namespace cuda {
template <int Threads>
struct Team : Reductions<Team<Threads>> {  // a warp (Threads == 32) or a block
  int rank;
  double* shared;  // one per warp, of a block
  __device__ Team(int rank, double* shared) : rank(rank), shared(shared) {}

  template <class F>
  __device__ void once(F f) const {
    if (rank == 0) f();
  }
  __device__ void barrier() const {
    if constexpr (Threads > 32) {
      __syncthreads();
    } else {
      __syncwarp();
    }
  }
  // Every column belongs to one thread, whatever the alignment: 8 neighbours each.
  template <class F, class... X>
  __device__ void each(i64 n, bool aligned, F& f, X... in) const {
    for (i64 i = rank * kPack; i < n; i += Threads * kPack) {
      if (aligned && i + kPack <= n) {
        f.pack(i, in.load(i)...);
      } else {
        for (i64 j = i; j < i + kPack && j < n; ++j) f.one(j, in[j]...);
      }
    }
  }
  template <class T, class V>
  __device__ static void write(T* p, V v) {
    Pack<T> pack;
    AF_UNROLL
    for (int j = 0; j < kPack; ++j) pack.v[j] = T(v(j));
    *reinterpret_cast<Pack<T>*>(p) = pack;
  }
  template <class V>
  __device__ static void write(float* p, V v) {  // two 16-byte stores
    reinterpret_cast<float4*>(p)[0] = {v(0), v(1), v(2), v(3)};
    reinterpret_cast<float4*>(p)[1] = {v(4), v(5), v(6), v(7)};
  }
#if defined(__CUDA_ARCH__)
  template <class V>
  __device__ static void write(bf16* p, V v) {  // one 16-byte store; as a struct nvcc may split it
    auto two = [&](int j) {
      unsigned u;
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(v(j + 1)), "f"(v(j)));
      return u;
    };
    unsigned a = two(0), b = two(2), c = two(4), d = two(6);
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
  }
#endif
  template <int k = 0, class T, class... R, class V>
  __device__ static void put_pack(const Outs<T, R...>& out, i64 i, const V (&v)[kPack]) {
    write(out.head.p + i, [&](int j) { return pick<k>(v[j]); });
    if constexpr (sizeof...(R) > 0) put_pack<k + 1>(out.tail, i, v);
  }

  template <class O, class F>
  struct Map {
    O out;
    F f;
    template <class... P>
    __device__ void pack(i64 i, P... p) {
      decltype(f(p[0]...)) v[kPack];
      AF_UNROLL
      for (int j = 0; j < kPack; ++j) v[j] = f(p[j]...);
      put_pack(out, i, v);
    }
    template <class... V>
    __device__ void one(i64 i, V... v) {
      put(out, i, f(v...));
    }
  };
  template <class... T, class F, class... X>
  __device__ void map(Outs<T...> out, F f, X... in) const {
    Map<Outs<T...>, F> each_value{out, f};
    each(out.n, (out.aligned() && ... && in.aligned()), each_value, in...);
  }
  template <class T, class F, class... X>
  __device__ void map(Row<T> out, F f, X... in) const {
    map(outs(out), f, in...);
  }
  template <class T, class S>
  __device__ void copy(Row<T> out, Row<S> in) const {
    map(
        out, [](Acc<T> v) { return v; }, in);
  }

  template <class R, class Op, class F>
  struct Reduce {
    R a;
    Op op;
    F f;
    template <class... P>
    __device__ void pack(i64, P... p) {
      AF_UNROLL
      for (int j = 0; j < kPack; ++j) a = op(a, f(p[j]...));
    }
    template <class... V>
    __device__ void one(i64, V... v) {
      a = op(a, f(v...));
    }
  };
  template <class R, class Op, class F, class X0, class... X>
  __device__ R reduce(R start, Op op, F f, X0 first, X... in) const {
    Reduce<R, Op, F> mine{start, op, f};
    each(first.n, (first.aligned() && ... && in.aligned()), mine, first, in...);
    R a = mine.a;
    for (int m = 16; m > 0; m /= 2) a = op(a, __shfl_xor_sync(0xffffffffu, a, m));
    if constexpr (Threads > 32) {
      R* warps = reinterpret_cast<R*>(shared);
      if (rank % 32 == 0) warps[rank / 32] = a;
      __syncthreads();
      a = warps[0];
      for (int w = 1; w < Threads / 32; ++w) a = op(a, warps[w]);
      __syncthreads();
    }
    return a;
  }

  template <class T, class B, class F>
  __device__ void add_rows(Row<T> out, B base, i64 count, F in) const {
    for (i64 i = rank * kPack; i < out.n; i += Threads * kPack) {
      const bool whole = out.aligned() && base.aligned() && i + kPack <= out.n;
      const int width = i + kPack <= out.n ? kPack : int(out.n - i);
      Acc<T> a[kPack] = {};
      if (whole) {
        const auto b = base.load(i);
        AF_UNROLL
        for (int l = 0; l < kPack; ++l) a[l] = b[l];
      } else {
        AF_UNROLL
        for (int l = 0; l < kPack; ++l)  // every index a constant: registers, not local memory
          if (l < width) a[l] = base[i + l];
      }
      for (i64 j = 0; j < count; ++j) {
        const auto row = in(j);
        if (row.aligned() && width == kPack) {
          const auto v = row.load(i);
          AF_UNROLL
          for (int l = 0; l < kPack; ++l) a[l] += v[l];
        } else {
          AF_UNROLL
          for (int l = 0; l < kPack; ++l)
            if (l < width) a[l] += row[i + l];
        }
      }
      if (whole) {
        write(out.p + i, [&](int l) { return a[l]; });
      } else {
        AF_UNROLL
        for (int l = 0; l < kPack; ++l)
          if (l < width) out.p[i + l] = T(a[l]);
      }
    }
  }
};

constexpr int kBlock = 256;      // threads: one team of a block, or 8 of a warp
constexpr i64 kWarpCols = 2048;  // longer rows get a whole block
template <class F>
__global__ void __launch_bounds__(kBlock, 1) flat_kernel(i64 n, F f) {
  for (i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += i64(gridDim.x) * blockDim.x) f(i);
}
// The 1 leaves ptxas all registers: it spills a few bytes for more blocks at once otherwise.
template <int Threads, class F>
__global__ void __launch_bounds__(kBlock, 1) row_kernel(i64 rows, F f) {
  __shared__ double shared[kBlock / 32];
  constexpr int teams = kBlock / Threads;
  const Team<Threads> team(int(threadIdx.x % Threads), shared);
  for (i64 r = i64(blockIdx.x) * teams + threadIdx.x / Threads; r < rows; r += i64(gridDim.x) * teams) f(r, team);
}
template <class K, class... A>
void launch(const Device& device, i64 blocks, int blocks_per_multiprocessor, K kernel, A... a) {
  const i64 most = i64(device.multiprocessors) * blocks_per_multiprocessor;
  const int grid = int(blocks < most ? blocks : most);
#if defined(__CUDACC__)
  kernel<<<grid, kBlock, 0, static_cast<cudaStream_t>(device.stream)>>>(a...);
  const cudaError_t error = cudaGetLastError();
  AF_CHECK(error == cudaSuccess, "a kernel was not launched: {}", cudaGetErrorString(error));
#else
  simt::launch(grid, kBlock, [=] { kernel(a...); });
#endif
}
inline void copy(const Device& device, void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const auto stream = static_cast<cudaStream_t>(device.stream);
  cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, stream);
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
  AF_CHECK(error == cudaSuccess, "a copy of {} bytes failed: {}", bytes, cudaGetErrorString(error));
}
}  // namespace cuda
#endif

// --------------------------------------------------------------------------------------------- launching
constexpr i64 kSerialWork = 1 << 15;  // elements: below, waking the other threads costs more than it brings

// fp64 is there to test the mathematics, on the CPU.
template <class F>
constexpr bool in_double = false;
template <template <class...> class F, class... T>
constexpr bool in_double<F<T...>> = (std::is_same_v<T, double> || ...);

// f(r, team) for every r < rows; cols: the elements of a row, as a measure of the work.
template <class F>
void for_each_row(const Device& device, i64 rows, i64 cols, F f) {
  if (rows <= 0) return;
#if defined(AF_CUDA)
  if (device.type == Device::Type::cuda) {
    if constexpr (in_double<F>) {
      AF_CHECK(false, "float64 runs on the CPU only");
    } else if (cols > cuda::kWarpCols) {
      cuda::launch(device, rows, 8, cuda::row_kernel<cuda::kBlock, F>, rows, f);
    } else {
      cuda::launch(device, (rows + 7) / 8, 8, cuda::row_kernel<32, F>, rows, f);
    }
    return;
  }
#endif
  if (device.threads <= 1 || rows == 1 || rows * cols < kSerialWork) {
    for (i64 r = 0; r < rows; ++r) f(r, Thread{});
    return;
  }
#pragma omp parallel for schedule(static) num_threads(device.threads) firstprivate(f)
  for (i64 r = 0; r < rows; ++r) f(r, Thread{});
}
// f(i) for every i < n: for what no row holds, such as a gather of single numbers.
template <class F>
void for_each(const Device& device, i64 n, F f) {
  if (n <= 0) return;
#if defined(AF_CUDA)
  if (device.type == Device::Type::cuda) {
    if constexpr (in_double<F>) {
      AF_CHECK(false, "float64 runs on the CPU only");
    } else {
      cuda::launch(device, (n + cuda::kBlock - 1) / cuda::kBlock, 16, cuda::flat_kernel<F>, n, f);
    }
    return;
  }
#endif
  const bool alone = device.threads <= 1 || n < kSerialWork;
  if (alone) {
    for (i64 i = 0; i < n; ++i) f(i);
    return;
  }
#pragma omp parallel for schedule(static) num_threads(device.threads) firstprivate(f)
  for (i64 i = 0; i < n; ++i) f(i);
}

// Between device and host memory; returns when it is done.
inline void copy_to_host([[maybe_unused]] const Device& device, void* host, const void* from, std::size_t bytes) {
#if defined(AF_CUDA)
  if (device.type == Device::Type::cuda) return cuda::copy(device, host, from, bytes, cudaMemcpyDeviceToHost);
#endif
  std::memcpy(host, from, bytes);
}
inline void copy_to_device([[maybe_unused]] const Device& device, void* to, const void* host, std::size_t bytes) {
#if defined(AF_CUDA)
  if (device.type == Device::Type::cuda) return cuda::copy(device, to, host, bytes, cudaMemcpyHostToDevice);
#endif
  std::memcpy(to, host, bytes);
}

// The chunks into which rows are cut where sums over rows are taken: by shape alone, so that no result depends on the
// number of threads. At most about 2 MB of partial sums.
struct RowChunks {
  i64 rows, size, count;
  RowChunks(i64 rows, i64 cols) : rows(rows) {
    i64 most = (i64(1) << 19) / (cols > 0 ? cols : 1);
    most = most < 64 ? 64 : most > 1024 ? 1024 : most;
    size = (rows + most - 1) / most;
    if (size < 8) size = 8;
    count = (rows + size - 1) / size;
  }
  AF_HD i64 begin(i64 chunk) const { return chunk * size; }
  AF_HD i64 end(i64 chunk) const { return chunk * size + size < rows ? chunk * size + size : rows; }
};
// out += the sum of the rows of `partial`, in order.
template <class A>
struct AddPartials {
  static constexpr i64 width = 256;  // columns per team
  Rows<A> partial;
  i64 count;
  Row<A> out;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    const i64 from = r * width, n = out.n - from < width ? out.n - from : width;
    const auto p = partial;
    const auto part = out.part(from, n);
    team.add_rows(part, part, count, [=](i64 j) { return p[j].part(from, n); });
  }
};
template <class A>
void add_partials(const Device& device, const Tensor& partial, const Tensor& out) {
  const i64 blocks = (out.numel() + AddPartials<A>::width - 1) / AddPartials<A>::width;
  for_each_row(device, blocks, AddPartials<A>::width * (partial.rows() + 1), AddPartials<A>{rows_of<A>(partial), partial.rows(), row_of<A>(out)});
}

}  // namespace af
