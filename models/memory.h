// Memory of training, counted tensor by tensor from the same shapes that the modules allocate (their Saved structs).
#pragma once
#include <cstdint>

#include "core/dtype.h"
#include "models/config.h"
#include "models/pass.h"

namespace af {

// Bytes per parameter: value + gradient + master + two moments. fp32 4 + 4 + 0 + 8 = 16 (the value is its own master),
// bf16 2 + 4 + 4 + 8 = 18, fp64 8 + 8 + 0 + 16 = 32.
struct ParameterMemory {
  std::int64_t values = 0, gradients = 0, master = 0, moments = 0;
  std::int64_t total() const { return values + gradients + master + moments; }
};
ParameterMemory parameter_memory(const ModelConfig& config, DType dtype);

// For one micro-batch of `tokens` in `sequences`. Attention needs no more for long documents than for short ones.
struct ActivationMemory {
  std::int64_t kept = 0;       // Saved.keep: what the backward needs, of every micro-batch in flight
  std::int64_t routed = 0;     // Saved.routed: likewise, of the rows that go to experts
  std::int64_t transient = 0;  // full recomputation: of the chunk of layers being recomputed
  std::int64_t scratch = 0;    // gradients and intermediates of the module at work, a chunk of logits; without the kernels' own
  std::int64_t total() const { return kept + routed + transient + scratch; }
};
ActivationMemory activation_memory(const ModelConfig& config, const RecomputeSettings& recompute, DType dtype, std::int64_t tokens,
                                   std::int64_t sequences);

}  // namespace af
