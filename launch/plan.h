// What a run will do and take, without running it: --dry-run.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "launch/config.h"
#include "launch/layout.h"
#include "models/communication.h"
#include "models/flops.h"
#include "models/memory.h"
#include "parallel/schedule_simulator.h"

namespace af {

// What a rank takes in a stage, bytes.
struct RankMemory {
  int rank = 0, pipeline_rank = 0;
  std::int64_t parameter_count = 0;
  ParameterMemory parameters;
  ActivationMemory activations;  // kept, delayed, routed: of all micro-batches in flight; transient: or of a validation's; of which there are
  int in_flight = 0;             // the most (of all chunks of layers together)
  std::int64_t messages = 0;     // between pipeline stages, the inputs held for the backward among them
  std::int64_t staging = 0;      // of sums over ranks
  std::int64_t inputs = 0;       // this rank's global batch, what is read ahead, RoPE's tables
  std::int64_t for_steps() const { return activations.total() + messages + staging + inputs; }
  std::int64_t total() const { return parameters.total() + for_steps(); }
};

struct StagePlan {
  std::int64_t iterations = 0, sequences = 0, tokens = 0;  // of the whole stage
  std::int64_t micro_batches = 0;                          // per iteration and data-parallel rank
  double warmup_iterations = 0;
  double flops_per_token = 0, flops = 0;  // forward and backward, one document per sequence: an upper bound for packed documents
  ParallelLayout layout;
  PipelineLayout pipeline;                // layers of the virtual stages
  ScheduleShape schedule;
  Simulation simulation;                  // of one iteration, by the FLOPs of each stage
  RankMemory fullest;
  // At most, while the training state moves from the layout of the stage before (parallel/placement.h); 0: it stays.
  std::int64_t moving = 0;
  AxisBytes sent;                         // of all ranks, per iteration
  std::int64_t bytes() const;             // of the fullest rank: in training or while moving
  std::vector<std::string> changes;       // against the stage before: "rope_theta 1e+06 -> 5e+06"
};

// What the process takes whatever it trains: code, libraries, caches of files, the kernels' packed panels. Measured.
inline constexpr std::int64_t kProgramBytes = 24 << 20, kMpiBytes = 12 << 20;

struct Plan {
  int ranks = 1;
  DType dtype = DType::f32;
  ParameterCounts parameters;
  std::vector<StagePlan> stages;
  std::int64_t machine_bytes = 0;   // physical memory; 0: not known
  std::int64_t program_bytes() const { return kProgramBytes + (ranks > 1 ? kMpiBytes : 0); }
  std::int64_t peak_bytes() const;  // of a rank: the program, and the stage that needs most
};

// The least number of processes that the layouts of all stages can be made of.
int least_ranks(const Config& config);
// On `ranks` processes, whose layout_problems() must be none.
Plan make_plan(const Config& config, int ranks);
// The report for people: shapes, parameters, memory, then each stage, and files that are not there.
std::string describe_plan(const Config& config, const Plan& plan);
// Whose schedule is to be drawn: the named stage, or the first with several pipeline ranks. None: UserError.
const StagePlan& pipelined_stage(const Config& config, const Plan& plan, const std::string& name = "");
std::string small_drawing(const StagePlan& stage);  // as text; empty where that would be wider or higher than a terminal

}  // namespace af
