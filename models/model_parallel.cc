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

namespace {

// What is wrong with cutting the dense layers, embedding and head in tp; the first thing found; "": nothing.
std::string tensor_problem(const ModelConfig& c, bool dense, std::int64_t tp) {
  auto cut = [&](const char* what, std::int64_t size) { return fmt::format("{} {} cannot be cut in tensor_model_parallel_size {}", what, size, tp); };
  if (c.num_attention_heads % tp) return cut("num_attention_heads", c.num_attention_heads);
  if (tp <= c.num_key_value_heads && c.num_key_value_heads % tp) return cut("num_key_value_heads", c.num_key_value_heads);
  if (tp > c.num_key_value_heads && tp % c.num_key_value_heads)
    return fmt::format("tensor_model_parallel_size {} is no multiple of num_key_value_heads {}: each rank has one key head, shared by equally many", tp,
                       c.num_key_value_heads);
  if (dense && c.intermediate_size % tp) return cut("intermediate_size", c.intermediate_size);
  if (c.vocab_size < tp) return fmt::format("vocab_size {} is smaller than tensor_model_parallel_size {}", c.vocab_size, tp);
  return {};
}

// "1, 2, 4": the numbers up to `most` that fit.
template <class F>
std::string fitting(std::int64_t most, F fits) {
  std::string text;
  for (std::int64_t n = 1; n <= most; ++n)
    if (fits(n)) text += fmt::format("{}{}", text.empty() ? "" : ", ", n);
  return text;
}

}  // namespace

std::vector<std::string> problems(const MeshShape& s, const ModelConfig& c) {
  std::vector<std::string> found;
  bool dense = false, sparse = false;
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) (c.is_moe_layer(i) ? sparse : dense) = true;
  if (std::string problem = tensor_problem(c, dense, s.tp); !problem.empty()) {
    std::string possible = fitting(c.num_attention_heads, [&](std::int64_t n) { return tensor_problem(c, dense, n).empty(); });
    found.push_back(fmt::format("{}; possible: {}", problem, possible));
  }
  auto divides = [&](const char* what, std::int64_t size, const char* by, std::int64_t ranks) {
    if (size % ranks == 0) return;
    std::string possible = fitting(size, [&](std::int64_t n) { return size % n == 0; });
    found.push_back(fmt::format("{} {} cannot be cut in {} {}; possible: {}", what, size, by, ranks, possible));
  };
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
