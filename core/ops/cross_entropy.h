// Softmax cross-entropy of one chunk of logits, in place.
#pragma once
#include "core/memory.h"

namespace af {

enum class WithGradient { no, yes };

// logits [R, V] (accumulator type; V columns may be strided rows); targets [R] int32, -1: not counted.
// loss [R] (accumulator type) = logsumexp(logits) - logits[target], 0 where not counted. With gradient the logits are
// overwritten by scale * (softmax - onehot), 0 in rows that are not counted.
void cross_entropy(const Context& context, const Tensor& logits, const Tensor& targets, const Tensor& loss, double scale, WithGradient with_gradient);

}  // namespace af
