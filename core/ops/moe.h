// Routing of tokens to experts: softmax router, top-k, and the permutation that brings tokens into expert order.
#pragma once
#include "core/memory.h"

namespace af {

enum class NormTopk { no, yes };  // HF's norm_topk_prob

// logits [T, E] (accumulator type). probs [T, E] = softmax(logits); expert [T, k] int32: the k largest, ties to the
// lower id, in descending order; weight [T, k] = their probabilities, divided by their sum with NormTopk::yes.
// log_sum_exp [T] for the z-loss.
void route(const Context& context, const Tensor& logits, int top_k, NormTopk norm, const Tensor& probs, const Tensor& expert, const Tensor& weight,
           const Tensor& log_sum_exp);
// d_logits [T, E] overwritten, from d_weight [T, k]; plus d_probs [S, E] (or empty): what a balance loss adds to the
// gradient of every token's probs in its group, S groups of T / S consecutive tokens; plus z_scale * 2 * lse * probs.
struct RouteBackward {
  Tensor probs, expert, weight, log_sum_exp;
  NormTopk norm;
  Tensor d_probs;
  double z_scale;
};
void route_backward(const Context& context, const Tensor& d_weight, const RouteBackward& p, const Tensor& d_logits);

// Mean-free sums for the balance losses: counts [S, E] int64 and probability sums [S, E] (fp64) per group of T / S
// consecutive tokens. Overwritten. Summed in an order that shape alone decides.
void expert_load(const Context& context, const Tensor& probs, const Tensor& expert, const Tensor& counts, const Tensor& prob_sums);

// A stable sort of the T * k choices by expert. source [T * k] int32: row r of the permuted order is choice source[r] =
// token * k + slot; position [T, k] int32 is its inverse; offsets [E + 1] int64 in host memory.
void permutation(const Context& context, const Tensor& expert, std::int64_t num_experts, const Tensor& source, const Tensor& position, std::int64_t* offsets);
// out [R, H] = x[source / k], and for columns of weights: out [R] = weight.flat[source]; `source` may be a part of the permutation.
void permute_rows(const Context& context, const Tensor& x, const Tensor& source, int top_k, const Tensor& out);
void permute_scalars(const Context& context, const Tensor& weight, const Tensor& source, const Tensor& out);    // weight [T, k] -> out [R]
void unpermute_scalars(const Context& context, const Tensor& x, const Tensor& position, const Tensor& out);     // x [R] -> out [T, k]
// out [T, H] = base + sum over k, in slot order, of y[position[t, k]]; base empty: 0; base may be out.
void unpermute_sum(const Context& context, const Tensor& y, const Tensor& position, const Tensor& base, const Tensor& out);

}  // namespace af
