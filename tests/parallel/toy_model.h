// The parameters of a small Qwen3-MoE without the model: every kind of sharding and replication that there is, for the tests of what
// handles parameters. Names and shapes are those of the published model.
#pragma once
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "core/ops/elementwise.h"
#include "core/random.h"
#include "parallel/comm_threads.h"
#include "parallel/mesh.h"
#include "parallel/parameter_set.h"

namespace af::test {

struct ToyConfig {
  std::int64_t layers = 4, hidden = 20, query_heads = 4, key_heads = 2, head_dim = 6, experts = 8, width = 12, vocab = 37;
  bool tied = false;
};

// Layers of stage s: a contiguous part of them.
inline void add_toy_parameters(const ToyConfig& c, const Mesh& mesh, ParameterSet& set) {
  const MeshShape& s = mesh.shape;
  const MeshPosition& at = mesh.position;
  const auto add = [&](Parameter p, const Comm& group, Gradients gradients) {
    if (group.size() > 1) p.replicated.push_back({0, p.numel(), group, gradients});
    set.add(std::move(p));
  };
  const auto embedding = [&](const std::string& name, const std::string& published, const Comm& tied) {
    add(row_parameter(name, published, {c.vocab, c.hidden}, part_of(c.vocab, s.tp, at.tp)), tied, Gradients::partial);
  };
  const Range layers = part_of(c.layers, s.pp, at.pp);
  if (mesh.first_stage()) embedding("embed_tokens", "model.embed_tokens.weight", c.tied ? mesh.tied : Comm());
  // Ranks that hold the same key heads: neighbours, where there are more ranks than heads.
  const int key_parts = int(std::min<std::int64_t>(s.tp, c.key_heads)), sharing = s.tp / key_parts;
  const Comm key_group = sharing > 1 ? mesh.tp.split(Axis::tp, at.tp / sharing, at.tp) : Comm();
  for (std::int64_t i = layers.begin; i < layers.end; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i), attention = layer + "self_attn.";
    const auto norm = [&](const std::string& name, std::int64_t size) { add(norm_parameter(name, layer + name + ".weight", size), mesh.tp, Gradients::partial); };
    norm("input_layernorm", c.hidden);
    const Range queries = part_of(c.query_heads, s.tp, at.tp), keys = part_of(c.key_heads, key_parts, at.tp / sharing);
    const auto heads = [&](Range r) { return Range{r.begin * c.head_dim, r.end * c.head_dim}; };
    Parameter qkv = stacked_parameter("qkv", {{attention + "q_proj.weight", c.query_heads * c.head_dim, heads(queries)},
                                              {attention + "k_proj.weight", c.key_heads * c.head_dim, heads(keys)},
                                              {attention + "v_proj.weight", c.key_heads * c.head_dim, heads(keys)}}, c.hidden);
    if (sharing > 1) qkv.replicated.push_back({qkv.slabs[1].offset, qkv.numel(), key_group, Gradients::partial});
    set.add(std::move(qkv));
    set.add(column_parameter("o", attention + "o_proj.weight", {c.hidden, c.query_heads * c.head_dim}, heads(queries)));
    norm("self_attn.q_norm", c.head_dim);
    norm("self_attn.k_norm", c.head_dim);
    norm("post_attention_layernorm", c.hidden);
    add(whole_parameter("router", layer + "mlp.gate.weight", {c.experts, c.hidden}), mesh.tp, Gradients::equal);
    const Range experts = part_of(c.experts, s.ep, at.ep), width = part_of(c.width, s.etp, at.etp);
    std::vector<NamedRows> gate_up;
    Parameter down;
    down.name = "down";
    down.shape = {experts.size() * c.hidden, width.size()};
    for (std::int64_t e = experts.begin; e < experts.end; ++e) {
      const std::string expert = fmt::format("{}mlp.experts.{}.", layer, e);
      gate_up.push_back({expert + "gate_proj.weight", c.width, width});
      gate_up.push_back({expert + "up_proj.weight", c.width, width});
      down.slabs.push_back({expert + "down_proj.weight", {c.hidden, c.width}, 0, c.hidden, width.begin, width.size(), (e - experts.begin) * c.hidden * width.size()});
    }
    Parameter first = stacked_parameter("gate_up", gate_up, c.hidden);
    first.grid = down.grid = Grid::expert;
    set.add(std::move(first));
    set.add(std::move(down));
  }
  if (!mesh.last_stage()) return;
  add(norm_parameter("norm", "model.norm.weight", c.hidden), mesh.tp, Gradients::partial);
  if (!c.tied) embedding("lm_head", "lm_head.weight", Comm());
  else if (!mesh.first_stage()) embedding("lm_head", "model.embed_tokens.weight", mesh.tied);
}

// Whole tensors by name, row-major, in fp64: what all ranks together should hold.
using Tensors = std::map<std::string, std::vector<double>>;

// Calls f(slab, element of the parameter, element of the published tensor) for everything in elements [begin, end) of a parameter.
template <class F>
void for_each_element(const Parameter& p, std::int64_t begin, std::int64_t end, F f) {
  for (const Slab& slab : p.slabs) {
    const std::int64_t cols = slab.global_shape.rank > 1 ? slab.global_shape[1] : 1;
    for (std::int64_t i = std::max(begin, slab.offset); i < std::min(end, slab.offset + slab.rows * slab.cols); ++i) {
      const std::int64_t local = i - slab.offset;
      f(slab, i, (slab.row_begin + local / slab.cols) * cols + slab.col_begin + local % slab.cols);
    }
  }
}

inline double element(const Tensor& flat, std::int64_t i) {
  if (flat.dtype == DType::f64) return flat.as<double>()[i];
  if (flat.dtype == DType::f32) return flat.as<float>()[i];
  std::uint32_t bits = std::uint32_t(static_cast<const std::uint16_t*>(flat.data)[i]) << 16;  // bf16
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline void set_element(const Tensor& flat, std::int64_t i, double value) {
  if (flat.dtype == DType::f64) flat.as<double>()[i] = value;
  else flat.as<float>()[i] = float(value);
}

// A random layout of 1 to `most` ranks that the toy model fits.
inline MeshShape random_mesh(std::uint64_t seed, int most, const ToyConfig& c) {
  for (std::uint64_t n = 0;; ++n) {
    const auto draw = [&](std::uint64_t stream, std::initializer_list<int> choices) {
      return choices.begin()[random_below(seed, stream, n, choices.size())];
    };
    MeshShape s{draw(1, {1, 1, 2, 4}), draw(2, {1, 1, 2}), draw(3, {1, 2, 3, 4}), draw(4, {1, 1, 2, 3}), draw(5, {1, 1, 2}), draw(6, {1, 2, 4, 8})};
    if (s.world() <= most && s.tp * s.cp * s.dp % (s.etp * s.ep) == 0 && s.pp <= c.layers) return s;
  }
}

inline std::string text(const MeshShape& s) { return fmt::format("tp {} cp {} dp {} pp {} etp {} ep {}", s.tp, s.cp, s.dp, s.pp, s.etp, s.ep); }

}  // namespace af::test
