// Qwen3's self-attention: fused qkv projection, per-head RMSNorm of q and k, RoPE, grouped-query causal attention, o projection.
#pragma once
#include "core/ops/norm.h"
#include "models/config.h"
#include "models/pass.h"
#include "parallel/linear.h"
#include "parallel/parameter_set.h"

namespace af {

// cos and sin [P, D/2] for the positions of a stage; shared by all layers.
struct RopeTables {
  Tensor cos, sin;
};

class Attention {
 public:
  struct Saved {
    Tensor qkv;             // [T, (Hq + 2 Hkv) D]
    Tensor q, k;            // [T, Hq, D], [T, Hkv, D] normed and rotated; recompute layernorm: empty
    Tensor q_rstd, k_rstd;  // [T, Hq], [T, Hkv]
    Tensor o, lse;          // [T, Hq D], [T, Hq]; recompute core_attn: empty
  };
  Attention(const ModelConfig& config, std::int64_t layer, ParameterSet& set);

  // y [T, H] += o_proj(attention(x)), x [T, H] the normed input.
  void forward(const Pass& pass, const RopeTables& rope, const Tensor& x, Saved& saved, const Tensor& y) const;
  // dx [T, H] from dy [T, H]; x as in forward.
  void backward(const Pass& pass, const RopeTables& rope, const Tensor& dy, const Tensor& x, const Saved& saved, const Tensor& dx) const;

 private:
  HeadNormRope norm_rope(const Pass& pass, const RopeTables& rope, const Parameter& norm) const;
  void queries_and_keys(const Pass& pass, const RopeTables& rope, Saved& saved) const;
  Tensor heads(const Tensor& qkv, std::int64_t begin, std::int64_t count) const;  // [T, count, D] of qkv

  std::int64_t query_heads_, key_heads_, head_dim_;
  double eps_;
  Linear qkv_, o_;
  Parameter *q_norm_, *k_norm_;
};

}  // namespace af
