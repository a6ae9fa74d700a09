// A CUDA device for tests, in software: what core/kernel.h needs of CUDA, read before everything else (-include). Every
// CUDA thread is a fiber; the fibers of a block share one thread of the host and are resumed in random order, so that
// code that lacks a barrier gives other answers for another seed. Divergent barriers, wrong masks and deadlock are
// errors. Under -fsanitize=thread the fibers are known to TSan *without* any order between them, so that a missing
// barrier is reported as a data race; under -fsanitize=address,undefined so are accesses out of bounds or misaligned.
// Not seen: what only `#if __CUDA_ARCH__` compiles, and races between blocks (they run one after the other).
#pragma once
#define AF_SIMT 1
#include <cstddef>
#include <cstring>
#include <functional>
#include <stdexcept>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __shared__ static thread_local  // the fibers of a block live on one thread of the host

namespace simt {
constexpr int kWarp = 32;

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The order in which fibers and blocks run.
extern unsigned seed;

// Runs body once for every thread of `blocks` blocks of `threads`; returns when all are done.
void launch(int blocks, int threads, const std::function<void()>& body);

int thread_index();
int block_index();
int threads_per_block();
int blocks_per_grid();

// All threads of the block come here before any goes on. `line`: which barrier of the program this is.
void sync_block(int line);

// All lanes in `mask` bring a value; each leaves with the value of lane `from` (its own where that is not in the mask).
struct LaneValue {
  alignas(16) unsigned char bytes[16];
};
LaneValue exchange(unsigned mask, const LaneValue& mine, int from);

struct ThreadIndex {
  operator unsigned() const { return unsigned(thread_index()); }
};
struct BlockIndex {
  operator unsigned() const { return unsigned(block_index()); }
};
struct BlockDim {
  operator unsigned() const { return unsigned(threads_per_block()); }
};
struct GridDim {
  operator unsigned() const { return unsigned(blocks_per_grid()); }
};
template <class X>
struct Dim {
  X x;
};
}  // namespace simt

inline constexpr simt::Dim<simt::ThreadIndex> threadIdx{};
inline constexpr simt::Dim<simt::BlockIndex> blockIdx{};
inline constexpr simt::Dim<simt::BlockDim> blockDim{};
inline constexpr simt::Dim<simt::GridDim> gridDim{};

#define __syncthreads() simt::sync_block(__LINE__)
inline void __syncwarp(unsigned mask = ~0u) { simt::exchange(mask, {}, 0); }
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  static_assert(sizeof(T) <= sizeof(simt::LaneValue));
  simt::LaneValue lane{};
  std::memcpy(&lane, &value, sizeof value);
  lane = simt::exchange(mask, lane, (simt::thread_index() % simt::kWarp) ^ lane_mask);
  std::memcpy(&value, &lane, sizeof value);
  return value;
}

// Device memory is the host's, and a stream does everything at once.
struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaError_t { cudaSuccess };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
