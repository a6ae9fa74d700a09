// The language model's head and its loss, fused over chunks of tokens: the logits [T, V] never exist as a whole. The vocabulary is
// cut over tensor-parallel ranks (any size: the parts differ by at most one row).
#pragma once
#include "core/memory.h"
#include "parallel/parameter.h"
#include "parallel/tensor_parallel.h"

namespace af {

class LmHead {
 public:
  // weight [V_local, H]; the embedding's own where they are tied. vocab_size: V of all ranks.
  LmHead(Parameter* weight, std::int64_t vocab_size, const TensorParallel& tp) : weight_(weight), vocab_size_(vocab_size), tp_(tp) {}

  // token_loss [T_local] (accumulator type) = cross-entropy of x W^T against targets [T] int32 (-1: not counted, 0).
  // x [T_local, H] is the normed output of the last layer. With dx given (same type and shape as x), the gradient of
  // scale * sum(token_loss) goes to dx and is added to W's: the logits of a chunk are computed once and for all.
  void forward(const Context& context, const Tensor& x, const Tensor& targets, double scale, const Tensor& token_loss, const Tensor& dx) const;
  // logits [T, V] (accumulator type) on one rank: for evaluation of a few tokens.
  void logits(const Context& context, const Tensor& x, const Tensor& logits) const;
  // Tokens whose logits are in memory at once: a function of V and the number of tensor-parallel ranks alone.
  std::int64_t chunk_tokens() const { return chunk_tokens(vocab_size_, tp_.comm().size()); }
  static std::int64_t chunk_tokens(std::int64_t vocab_size, std::int64_t ranks = 1);

 private:
  void chunk(const Context& context, const Tensor& x, const Tensor& targets, double scale, const Tensor& z, const Tensor& loss, const Tensor& dx) const;
  void cross_entropy_of(const Context& context, const Tensor& z, const Tensor& targets, double scale, const Tensor& loss, bool with_gradient) const;

  Parameter* weight_;
  std::int64_t vocab_size_;
  TensorParallel tp_;
};

}  // namespace af
