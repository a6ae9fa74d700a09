// The language model's head and its loss, fused over chunks of tokens: the logits [T, V] never exist as a whole.
#pragma once
#include "core/memory.h"
#include "parallel/parameter.h"

namespace af {

class LmHead {
 public:
  explicit LmHead(Parameter* weight) : weight_(weight) {}  // [V, H]; the embedding's own where they are tied

  // token_loss [T] (accumulator type) = cross-entropy of x W^T against targets [T] int32 (-1: not counted, 0).
  // x [T, H] is the normed output of the last layer. With dx given (same type and shape as x), the gradient of
  // scale * sum(token_loss) goes to dx and is added to W's: the logits of a chunk are computed once and for all.
  void forward(const Context& context, const Tensor& x, const Tensor& targets, double scale, const Tensor& token_loss, const Tensor& dx) const;
  // logits [T, V] (accumulator type): for evaluation of a few tokens.
  void logits(const Context& context, const Tensor& x, const Tensor& logits) const;
  // Tokens whose logits are in memory at once: a function of V alone.
  static std::int64_t chunk_tokens(std::int64_t vocab_size);

 private:
  Parameter* weight_;
};

}  // namespace af
