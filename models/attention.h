// Qwen3's self-attention: fused qkv projection, per-head RMSNorm of q and k, RoPE, grouped-query causal attention, o projection.
#pragma once
#include "core/ops/norm.h"
#include "models/config.h"
#include "models/model_parallel.h"
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
  Attention(const ModelConfig& config, const ModelParallel& parallel, std::int64_t layer, ParameterSet& set);

  // y [T_local, H] += o_proj(attention(x)), x [T_local, H] the normed input.
  void forward(const Pass& pass, const RopeTables& rope, const Tensor& x, Saved& saved, const Tensor& y) const;
  // dx [T_local, H] from dy [T_local, H]; x as in forward.
  void backward(const Pass& pass, const RopeTables& rope, const Tensor& dy, const Tensor& x, const Saved& saved, const Tensor& dx) const;

 private:
  HeadNormRope norm_rope(const Pass& pass, const RopeTables& rope, const Parameter& norm) const;
  void queries_and_keys(const Pass& pass, const RopeTables& rope, Saved& saved) const;
  // The batch's keys and values to the ends of their documents in the cache.
  void remember(const Pass& pass, const Saved& saved) const;
  // o and lse from saved.q, saved.k and the values in saved.qkv.
  void core(const Pass& pass, const Saved& saved) const;
  void core_backward(const Pass& pass, const Saved& saved, const Tensor& d_o, const Tensor& dq, const Tensor& dk, const Tensor& dv) const;
  Tensor values(const Saved& saved) const { return heads(saved.qkv, query_heads_ + key_heads_, key_heads_); }
  Tensor heads(const Tensor& qkv, std::int64_t begin, std::int64_t count) const;  // [T, count, D] of qkv

  std::int64_t layer_, query_heads_, key_heads_, head_dim_;
  double eps_;
  Comm cp_;
  ColumnParallelLinear qkv_;
  RowParallelLinear o_;
  Parameter *q_norm_, *k_norm_;
};

}  // namespace af
