#include "models/model_parallel.h"

#include <fmt/format.h>

namespace af {

ModelParallel::ModelParallel(const Mesh& m, const ModelConfig& config) : mesh(m), tensor(m.tp, m.shape.sequence_parallel) {
  std::int64_t heads = config.num_key_value_heads, ranks = m.shape.tp;
  if (ranks > heads) key_replicas = m.tp.split(Axis::tp, int(m.position.tp / (ranks / heads)), m.position.tp);
}

void ModelParallel::replicate_over_tp(Parameter& parameter, Gradients gradients) const {
  if (!tensor.alone()) parameter.replicated.push_back({0, parameter.numel(), tensor.comm(), gradients});
}

Range ModelParallel::key_heads(const ModelConfig& config) const {
  std::int64_t heads = config.num_key_value_heads, ranks = mesh.shape.tp;
  if (ranks <= heads) return part_of(heads, ranks, mesh.position.tp);
  std::int64_t head = mesh.position.tp / (ranks / heads);
  return {head, head + 1};
}

std::vector<std::string> problems(const MeshShape& s, const ModelConfig& c) {
  std::vector<std::string> found;
  auto divides = [&](const char* what, std::int64_t size, const char* by, std::int64_t ranks) {
    if (size % ranks == 0) return;
    std::string possible;
    for (std::int64_t d = 1; d <= size; ++d)
      if (size % d == 0) possible += fmt::format("{}{}", possible.empty() ? "" : ", ", d);
    found.push_back(fmt::format("{} {} cannot be cut in {} {}; possible: {}", what, size, by, ranks, possible));
  };
  divides("num_attention_heads", c.num_attention_heads, "tensor_model_parallel_size", s.tp);
  if (s.tp <= c.num_key_value_heads) divides("num_key_value_heads", c.num_key_value_heads, "tensor_model_parallel_size", s.tp);
  else if (s.tp % c.num_key_value_heads)
    found.push_back(fmt::format("tensor_model_parallel_size {} is no multiple of num_key_value_heads {}: each rank has one key head, shared by equally many",
                                s.tp, c.num_key_value_heads));
  bool dense = false, sparse = false;
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) (c.is_moe_layer(i) ? sparse : dense) = true;
  if (dense) divides("intermediate_size", c.intermediate_size, "tensor_model_parallel_size", s.tp);
  if (c.vocab_size < s.tp) found.push_back(fmt::format("vocab_size {} is smaller than tensor_model_parallel_size {}", c.vocab_size, s.tp));
  if (sparse) {
    divides("num_experts", c.num_experts, "expert_model_parallel_size", s.ep);
    divides("moe_intermediate_size", c.moe_intermediate_size, "expert_tensor_parallel_size", s.etp);
    if (s.tp > 1 && !s.sequence_parallel)
      found.push_back(fmt::format("tensor_model_parallel_size {} of a mixture of experts needs sequence_parallel: true, or every rank would send the same tokens",
                                  s.tp));
  } else {
    if (s.ep > 1) found.push_back(fmt::format("expert_model_parallel_size {}: the model has no experts; 1 is possible", s.ep));
    if (s.etp > 1 && s.etp != s.tp) found.push_back(fmt::format("expert_tensor_parallel_size {}: the model has no experts", s.etp));
  }
  return found;
}

}  // namespace af
