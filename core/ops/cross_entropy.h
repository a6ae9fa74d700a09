// Softmax cross-entropy of one chunk of logits, in place.
#pragma once
#include "core/memory.h"

namespace af {

enum class WithGradient { no, yes };

// logits [R, V] (accumulator type; V columns may be strided rows); targets [R] int32, -1: not counted.
// loss [R] (accumulator type) = logsumexp(logits) - logits[target], 0 where not counted. With gradient the logits are
// overwritten by scale * (softmax - onehot), 0 in rows that are not counted.
void cross_entropy(const Context& context, const Tensor& logits, const Tensor& targets, const Tensor& loss, double scale, WithGradient with_gradient);

// The same over a vocabulary that several ranks share, each with the logits of the ids first_id .. first_id + V: in three steps.
// 1. stats [R, 3] (accumulator type): the largest of this rank's logits, sum(exp(logit - largest)), and the target's logit
//    (the lowest number where the target is another rank's).
void cross_entropy_share(const Context& context, const Tensor& logits, const Tensor& targets, std::int64_t first_id, const Tensor& stats);
// 2. all_stats [ranks * R, 3], the ranks' one after the other: loss [R], and in `total` [R, 2] the largest logit and the sum of
//    exponentials of all, added in rank order.
void cross_entropy_total(const Context& context, const Tensor& all_stats, const Tensor& targets, const Tensor& loss, const Tensor& total);
// 3. logits overwritten by their gradient.
void cross_entropy_share_gradient(const Context& context, const Tensor& logits, const Tensor& targets, std::int64_t first_id, const Tensor& total,
                                  double scale);

}  // namespace af
