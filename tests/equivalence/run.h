// One run of a case: a few steps, and everything that two runs are compared by.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "layouts.h"
#include "parallel/comm_threads.h"

namespace af::test {

struct StepRecord {
  double loss = 0, grad_norm = 0, balance_loss = 0;
  double dropped = 0;                             // choices beyond their expert's capacity
  double in_rounds = 0;                           // passes that experts ran in rounds
  std::vector<std::vector<std::int64_t>> counts;  // tokens per expert of each layer
};

struct RunRecord {
  std::vector<StepRecord> steps;
  std::map<std::string, std::vector<double>> gradients;   // of the first step, by published name, whole tensors
  std::map<std::string, std::vector<double>> parameters;  // after the last step
  std::vector<int> written;                                // how often each element was given; all 1
  double routed_peak = 0;                                  // of the ranks the one whose routed pool came nearest to its limit: share of it
};

// What is done wrong on purpose; `what` for messages.
struct Mutant {
  std::string what;
  CommFault fault;
  std::function<void(int rank, ParallelModel&)> model;       // once, after it was made
  std::function<void(int rank, GlobalBatch&)> batch;         // every step
};

// All ranks of the case, as threads of this process; one rank runs alone. `reorder`: one rank with the micro-batches that the ranks of
// `as` would have. threads: of each rank's kernels.
RunRecord run_case(const Case& c, const Mutant& mutant = {}, int threads = 1);
RunRecord run_reference(const Case& as, const Mutant& mutant = {});

// bf16: no bound between two layouts holds for every tensor, but both must be about as near to the true gradient: `exact` is one rank's
// in fp64.
// "" or what differs beyond the bounds (design section 7), with the worst figures in `worst` (relative).
struct Worst {
  double loss = 0, grad_norm = 0, gradient = 0, parameter = 0;
  std::string at;
};
std::string difference(const Case& c, const RunRecord& reference, const RunRecord& run, Worst* worst, const RunRecord* exact = nullptr);
// Runs the case and everything that it is compared with.
std::string compare(const Case& c, const Mutant& mutant, Worst* worst);

}  // namespace af::test
