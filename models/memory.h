// Memory of training, counted tensor by tensor from the same shapes that the modules allocate (their Saved structs).
#pragma once
#include <cstdint>

#include "core/dtype.h"
#include "models/config.h"
#include "models/pass.h"
#include "parallel/mesh.h"
#include "parallel/pipeline_layout.h"

namespace af {

// Bytes per parameter: value + gradient + master + two moments. fp32 4 + 4 + 0 + 8 = 16 (the value is its own master),
// bf16 2 + 4 + 4 + 8 = 18, fp64 8 + 8 + 0 + 16 = 32. In d shares masters and moments are a d-th of it: bf16 6 + 12/d.
struct ParameterMemory {
  std::int64_t values = 0, gradients = 0, master = 0, moments = 0;
  std::int64_t state() const { return master + moments; }
  std::int64_t total() const { return values + gradients + state(); }
};
ParameterMemory parameter_memory(const ModelConfig& config, DType dtype);

// Elements of the flat buffers of a rank (parallel/parameter_set.h), with their padding to lines and equal shares.
struct RankParameters {
  std::int64_t parameters = 0;                     // without padding
  std::int64_t dense = 0, experts = 0;             // values, gradients
  std::int64_t dense_share = 0, expert_share = 0;  // master weights, moments
  ParameterMemory memory(DType dtype) const;
};
// stages: all virtual ones. Ranks of one pp and tp have as much.
RankParameters rank_parameters(const ModelConfig& config, const MeshShape& mesh, const PipelineLayout& stages, int pp, int tp,
                               std::int64_t bucket_numel = Sharding{}.bucket_numel);

// What of a micro-batch a virtual stage sees. Letters as in pass.h.
struct ActivationShape {
  std::int64_t tokens = 0, sequences = 1;  // T, S
  StageLayers stage;
  MeshShape mesh = {};
  bool delayed = false;           // zero bubble: what weight gradients need is kept until these
  std::int64_t expert_rows = -1;  // N; -1: experts that are all chosen equally often
  std::int64_t key_rows = -1;     // context parallelism: keys that the rank gathers; -1: documents as long as the sequence
};
ActivationShape whole_model(const ModelConfig& config, std::int64_t tokens, std::int64_t sequences);

// Of one micro-batch. Attention needs no more for long documents than for short ones.
struct ActivationMemory {
  std::int64_t kept = 0;       // Saved.keep: what the backward needs, of every micro-batch in flight
  std::int64_t delayed = 0;    // likewise, what the backward adds for weight gradients that come later
  std::int64_t routed = 0;     // Saved.routed: likewise, of the rows that go to experts
  std::int64_t transient = 0;  // full recomputation: of the chunk of layers being recomputed
  std::int64_t scratch = 0;    // gradients and intermediates of the module at work, a chunk of logits; without the kernels' own
  std::int64_t in_flight() const { return kept + delayed + routed; }
  std::int64_t total() const { return in_flight() + transient + scratch; }
};
ActivationMemory activation_memory(const ModelConfig& config, const RecomputeSettings& recompute, DType dtype, const ActivationShape& shape);

}  // namespace af
