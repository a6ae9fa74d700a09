// One transformer layer: x + attention(norm(x)), then + mlp(norm(x)), the MLP dense or a mixture of experts.
#pragma once
#include <optional>
#include <vector>

#include "models/attention.h"
#include "models/mlp.h"
#include "models/moe.h"

namespace af {

class DecoderLayer {
 public:
  struct Saved {
    Tensor x, x_mid;                // [T_local, H] the residual stream before attention and before the MLP
    Tensor norm1, norm2;            // [T_local, H] the normed inputs; recompute layernorm: empty
    Tensor norm1_rstd, norm2_rstd;  // [T_local]
    Attention::Saved attention;
    Mlp::Saved mlp;
    Moe::Saved moe;
  };
  DecoderLayer(const ModelConfig& config, const ModelParallel& parallel, std::int64_t layer, ParameterSet& set);

  // y [T_local, H] from x [T_local, H], which must live as long as `saved` does. An empty y: only what the backward needs.
  void forward(const Pass& pass, const RopeTables& rope, const Tensor& x, RouterStatistics& statistics, Saved& saved, const Tensor& y) const;
  // d [T_local, H]: the gradient of y on entry, of x on return.
  void backward(const Pass& pass, const RopeTables& rope, const RouterStatistics& statistics, const Saved& saved, const Tensor& d) const;

  const std::vector<Parameter*>& parameters() const { return parameters_; }  // in the order of the forward
  const Moe* moe() const { return moe_ ? &*moe_ : nullptr; }

 private:
  double eps_;
  Parameter* input_norm_;
  Attention attention_;
  Parameter* post_attention_norm_;
  std::optional<Mlp> mlp_;
  std::optional<Moe> moe_;
  std::vector<Parameter*> parameters_;
};

}  // namespace af
