// Which layers stand on which virtual stage. Chunk c of rank r is virtual stage c P + r (parallel/schedule.h).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace af {

struct StageLayers {
  std::int64_t begin = 0, end = 0;  // decoder layers
  bool embedding = false;           // the first virtual stage
  bool head = false;                // the last: final norm, LM head and loss
  std::int64_t layers() const { return end - begin; }
  bool operator==(const StageLayers&) const = default;
};
using PipelineLayout = std::vector<StageLayers>;  // of each virtual stage; all layers in order, each once

// As even as it goes: floor(layers / stages) each; the rest, one each, on the last stages before the very last, which has the head to
// compute (late stages keep fewer micro-batches than early ones). Impossible: UserError with the arithmetic.
PipelineLayout even_layout(std::int64_t layers, int pipeline_size, int virtual_size);

// pipeline_model_parallel_layout, in one of two forms:
//   numbers of layers     "3,4,4,3"            one per virtual stage
//   Megatron's            "Et*3|(tt|)*29|L"    E embedding, t decoder layer, L loss; | ends a stage, x*N or (...)*N repeats, commas and
//                                              blanks are for the eye
// A virtual stage without a layer has the embedding or the head. Layers placed other than `layers`, or stages other than
// pipeline_size * virtual_size: UserError with the arithmetic.
PipelineLayout parse_layout(const std::string& text, std::int64_t layers, int pipeline_size, int virtual_size);

std::string str(const PipelineLayout& layout);  // in Megatron's form; parse_layout reads it

}  // namespace af
