// From a stage's parallel and pipeline sections to a layout of processes, and everything that may forbid it.
#pragma once
#include <string>
#include <vector>

#include "launch/config.h"
#include "launch/parallel_model.h"

namespace af {

// On `world` processes: the data-parallel size is what the others leave.
ParallelLayout layout_of(const ModelConfig& model, const StageConfig& stage, int world);

// "run.yaml:12:3: stage stage2: tensor_model_parallel_size 4 x ... = 12 does not divide the 32 processes; possible: ...", one for each
// thing that no layout of `world` processes can do, of all stages. Empty: nothing.
std::vector<std::string> layout_problems(const Config& config, int world);

// "TP 2, PP 4, CP 1, DP 2, EP 8, ETP 1, sequence parallel, 1f1b"
std::string describe(const ParallelLayout& layout);
bool same(const ParallelLayout& a, const ParallelLayout& b);

}  // namespace af
