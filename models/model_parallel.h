// This rank's part of the model's dimensions.
#pragma once
#include <string>
#include <vector>

#include "models/config.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"
#include "parallel/tensor_parallel.h"

namespace af {

struct ModelParallel {
  ModelParallel() = default;  // one rank
  // Collective: every rank of the mesh makes one.
  ModelParallel(const Mesh& mesh, const ModelConfig& config);

  Mesh mesh;
  TensorParallel tensor;
  // Ranks of tp with the same key head, where there are fewer key heads than ranks.
  Comm key_replicas;
  // A parameter whose gradient every rank of tp has a part of (its input is cut by tokens or heads), or that is the same on all.
  void replicate_over_tp(Parameter& parameter, Gradients gradients) const;
  Range key_heads(const ModelConfig& config) const;
};

// What of a model cannot be cut so, one message each with the arithmetic and what would be possible; empty: nothing.
std::vector<std::string> problems(const MeshShape& shape, const ModelConfig& config);

}  // namespace af
