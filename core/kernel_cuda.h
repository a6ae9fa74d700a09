// CUDA's teams: a warp for short rows, a block for long ones; memory moves in packs of 16 bytes.
// A part of core/kernel.h, which is what to include.
#pragma once
#include "core/kernel_rows.h"

namespace af {

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
        AF_ROLLED
        for (i64 j = i; j < i + kPack && j < n; ++j) f.one(j, in[j]...);
      }
    }
  }
  template <int k = 0, class T, class... R, class V>
  __device__ static void put_pack(const Outs<T, R...>& out, i64 i, const V (&v)[kPack]) {
    Acc<T> column[kPack];
    AF_UNROLL
    for (int j = 0; j < kPack; ++j) column[j] = pick<k>(v[j]);
    store_pack(out.head.p + i, column);
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
        store_pack(out.p + i, a);
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
  start_kernel(grid, kBlock, static_cast<cudaStream_t>(device.stream), kernel, a...);
  const cudaError_t error = cudaGetLastError();
  AF_CHECK(error == cudaSuccess, "a kernel was not launched: {}", cudaGetErrorString(error));
}
inline void copy(const Device& device, void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const auto stream = static_cast<cudaStream_t>(device.stream);
  cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, stream);
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
  AF_CHECK(error == cudaSuccess, "a copy of {} bytes failed: {}", bytes, cudaGetErrorString(error));
}
}  // namespace cuda

}  // namespace af
