#include "launch/environment.h"

#include <immintrin.h>
#include <malloc.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <initializer_list>
#include <string>
#include <thread>

#include "core/ops/elementwise.h"
#include "core/ops/matmul.h"
#include "parallel/comm_mpi.h"

namespace af {

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

JobEnvironment job_environment() {
  auto number = [](std::initializer_list<const char*> names, int otherwise) {
    for (const char* name : names)
      if (const char* value = std::getenv(name)) return std::atoi(value);
    return otherwise;
  };
  JobEnvironment job;
  if (const char* end = std::getenv("SLURM_JOB_END_TIME")) job.end_time = std::atoll(end);
  job.mpi = started_by_mpi(std::getenv("OMPI_COMM_WORLD_SIZE"), std::getenv("PMIX_RANK"));
  if (!job.mpi) return job;
  job.rank = number({"OMPI_COMM_WORLD_RANK", "PMIX_RANK"}, 0);
  job.ranks_on_host = std::max(1, number({"OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE"}, 1));
  return job;
}

Device start_device(const RuntimeConfig& runtime, const JobEnvironment& job) {
  mallopt(M_MMAP_THRESHOLD, 2 << 20);  // else it rises to 32 MiB, and what a stage frees below that is kept from the next one
  _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_ON);
  _MM_SET_DENORMALS_ZERO_MODE(_MM_DENORMALS_ZERO_ON);
  Device device;
  const int cores = available_cores();
  const bool whole_machine = cores >= int(std::thread::hardware_concurrency());
  device.threads = runtime.threads_per_rank > 0 ? int(runtime.threads_per_rank) : whole_machine ? std::max(1, cores / job.ranks_on_host) : cores;
  return device;
}

DType compute_dtype(const RuntimeConfig& runtime) {
  switch (runtime.precision) {
    case RuntimeConfig::Precision::bf16: return DType::bf16;
    case RuntimeConfig::Precision::fp64: return DType::f64;
    case RuntimeConfig::Precision::fp32:
    case RuntimeConfig::Precision::automatic: break;
  }
  return DType::f32;
}

double measure_peak_tflops(const Device& device, DType dtype) {
  constexpr std::int64_t kSize = 768;
  Arena scratch(device, "peak measurement");
  Context context{device, scratch};
  Tensor a = scratch.tensor({kSize, kSize}, dtype), b = scratch.tensor({kSize, kSize}, dtype), c = scratch.tensor({kSize, kSize}, accumulator_of(dtype));
  fill(context, a, 0.5);
  fill(context, b, 0.25);
  matmul(context, a, Trans::no, b, Trans::no, c, Accumulate::no);
  double best = 0;
  for (int round = 0; round < 2; ++round) {
    auto begin = std::chrono::steady_clock::now();
    matmul(context, a, Trans::no, b, Trans::no, c, Accumulate::no);
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    best = std::max(best, 2e-12 * double(kSize * kSize * kSize) / seconds);
  }
  return best;
}

std::int64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");  // not getrusage: its figure counts what the process was before exec
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  return 0;
}

}  // namespace af
