// What a run will do and take, without running it: --dry-run.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "launch/config.h"
#include "models/flops.h"
#include "models/memory.h"

namespace af {

struct StagePlan {
  std::int64_t iterations = 0, sequences = 0, tokens = 0;  // of the whole stage
  std::int64_t micro_batches = 0;                          // per iteration
  double warmup_iterations = 0;
  double flops_per_token = 0, flops = 0;  // forward and backward, one document per sequence: an upper bound for packed documents
  ActivationMemory activations;           // of one micro-batch
  std::int64_t inputs = 0;                // bytes: the global batch's tokens, what is read ahead, RoPE's tables
  std::int64_t bytes() const { return activations.total() + inputs; }
  std::vector<std::string> changes;       // against the stage before: "rope_theta 1e+06 -> 5e+06"
};

// What the process takes whatever it trains: code, libraries, caches of files, the kernels' packed panels. Measured.
inline constexpr std::int64_t kProgramBytes = 24 << 20;

struct Plan {
  DType dtype = DType::f32;
  ParameterCounts parameters;
  ParameterMemory memory;
  std::vector<StagePlan> stages;
  std::int64_t machine_bytes = 0;   // physical memory; 0: not known
  std::int64_t peak_bytes() const;  // program, parameters, optimizer, and the activations and inputs of the stage that needs most
};

Plan make_plan(const Config& config);
// The report for people: shapes, parameters, memory, then each stage, and files that are not there.
std::string describe_plan(const Config& config, const Plan& plan);

}  // namespace af
