// What the process finds around it at its start.
#pragma once
#include <cstdint>

#include "core/device.h"
#include "core/dtype.h"
#include "launch/config.h"

namespace af {

// Cores that this process may use (its affinity mask, not the machine's).
int available_cores();
// How mpirun or srun started this process, {false, 0, 1} where none did; and until when Slurm lets it run.
struct JobEnvironment {
  bool mpi = false;
  int rank = 0, ranks_on_host = 1;
  std::int64_t end_time = 0;  // seconds since 1970; 0: no end is known
};
JobEnvironment job_environment();
// The device of this rank, with denormals flushed to zero on the CPU (a thread that meets them slows to a crawl).
// Must be called before the first parallel region: OpenMP's threads inherit the setting.
// Threads, where the configuration does not say: the cores of its affinity mask, shared with the ranks of this host where the mask
// is the whole machine's.
Device start_device(const RuntimeConfig& runtime, const JobEnvironment& job = {});
DType compute_dtype(const RuntimeConfig& runtime);
// TFLOP/s of our own matmul at a favourable size, measured for some 20 ms: the peak that the MFU refers to where none is given.
double measure_peak_tflops(const Device& device, DType dtype);
std::int64_t peak_resident_bytes();

}  // namespace af
