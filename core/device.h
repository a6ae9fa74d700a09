// Where kernels run. A value: it is passed, never looked up.
#pragma once

namespace af {

struct Device {
  enum class Type { cpu, cuda };
  Type type = Type::cpu;
  int threads = 1;         // cpu: OpenMP threads of this rank; no result depends on it
  void* stream = nullptr;  // cuda: the stream (cudaStream_t) on which every kernel of this rank is enqueued
  int multiprocessors = 0;  // cuda
};

}  // namespace af
