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
#define AF_ROLLED _Pragma("unroll 1")
#elif defined(__clang__)
#define AF_HD inline __attribute__((always_inline))
#define AF_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#define AF_UNROLL _Pragma("clang loop unroll(full)")
#define AF_ROLLED
#else
#define AF_HD inline __attribute__((always_inline))
#define AF_INDEPENDENT _Pragma("GCC ivdep")  // not `omp simd`: that keeps every lane's temporaries in memory
#define AF_UNROLL _Pragma("GCC unroll 16")
#define AF_ROLLED
#endif

namespace af {
using i64 = std::int64_t;

template <class To, class From>
AF_HD To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

AF_HD std::uint16_t round_to_bf16(float f) {  // to nearest, ties to even; NaN stays NaN
#if defined(__CUDA_ARCH__)
  std::uint16_t raw;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(raw) : "f"(f));
  return raw;
#else
  const auto u = bits<std::uint32_t>(f);
  const auto rounded = (u + 0x7fffu + ((u >> 16) & 1)) >> 16;
  return std::uint16_t((u & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : rounded);
#endif
}
}  // namespace af

#include "core/kernel_cpu.h"

#if defined(AF_CUDA)
namespace af {
// Eight numbers, rounded to T, to an address that is a multiple of 16.
template <class T>
__device__ void store_pack(T* p, const Acc<T> (&v)[kPack]) {
  Pack<T> pack;
  AF_UNROLL
  for (int j = 0; j < kPack; ++j) pack.v[j] = T(v[j]);
  *reinterpret_cast<Pack<T>*>(p) = pack;
}
#if defined(__CUDA_ARCH__)  // assembly: nvcc splits some stores of a struct into single numbers
__device__ inline void store_pack(float* p, const float (&v)[kPack]) {
  asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(p), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]) : "memory");
  asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(p + 4), "f"(v[4]), "f"(v[5]), "f"(v[6]), "f"(v[7]) : "memory");
}
__device__ inline void store_pack(bf16* p, const float (&v)[kPack]) {
  unsigned u[4];
  AF_UNROLL
  for (int j = 0; j < 4; ++j) asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(u[j]) : "f"(v[2 * j + 1]), "f"(v[2 * j]));
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(u[0]), "r"(u[1]), "r"(u[2]), "r"(u[3]) : "memory");
}
#endif
template <class Kernel, class... Arguments>
void start_kernel(int blocks, int threads, [[maybe_unused]] cudaStream_t stream, Kernel kernel, Arguments... arguments) {
#if defined(__CUDACC__)
  kernel<<<blocks, threads, 0, stream>>>(arguments...);
#else
  simt::launch(blocks, threads, [=] { kernel(arguments...); });
#endif
}
}  // namespace af
#include "core/kernel_cuda.h"
#endif

namespace af {
constexpr i64 kSerialWork = 1 << 15;  // elements: below, waking the other threads costs more than it brings

// fp64 is there to test the mathematics, on the CPU.
template <class F>
constexpr bool in_double = false;
template <template <class...> class F, class... T>
constexpr bool in_double<F<T...>> = (std::is_same_v<T, double> || ...);

// f(r, team) for every r < rows. cols: how long the rows are that it hands to its team; passes: how many of them.
template <class F>
void for_each_row(const Device& device, i64 rows, i64 cols, F f, i64 passes = 1) {
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
  if (device.threads <= 1 || rows == 1 || rows * cols * passes < kSerialWork) {
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
  for_each_row(device, blocks, AddPartials<A>::width, AddPartials<A>{rows_of<A>(partial), partial.rows(), row_of<A>(out)}, partial.rows() + 1);
}

}  // namespace af
