#include "parallel/embedding.h"

#include "core/ops/embedding.h"

namespace af {

void VocabParallelEmbedding::forward(const Context& context, const Tensor& tokens, const Tensor& x) const {
  Arena::Scope scope(context.scratch);
  Tensor part = tp_.part_of_sum(context.scratch, x);
  embedding(context, weight_->value, tokens, part, first_id());
  tp_.leave(part, x).wait();
}

void VocabParallelEmbedding::backward(const Context& context, const Tensor& dx, const Tensor& tokens) const {
  Arena::Scope scope(context.scratch);
  embedding_backward(context, tp_.enter(context.scratch, dx), tokens, weight_->gradient, first_id());
}

}  // namespace af
