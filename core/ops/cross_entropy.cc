#include "core/ops/cross_entropy.h"

#include "core/kernel.h"

namespace af {
namespace {

template <class A>
struct CrossEntropy {
  Rows<A> logits;
  const std::int32_t* targets;
  A* loss;
  A scale;
  bool with_gradient;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    const auto z = logits[r];
    const int target = targets[r];
    A* const to = loss + r;
    if (target < 0) {
      team.once([=] { *to = A(0); });
      if (with_gradient)
        team.map(
            z, [](int) { return A(0); }, Index{});
      return;
    }
    const A largest = team.max([](A v) { return v; }, z);
    const A sum = team.sum([=](A v) { return exponential(v - largest); }, z);
    const A at_target = z[target];
    team.once([=] { *to = (largest - at_target) + logarithm(sum); });
    if (!with_gradient) return;
    team.barrier();  // all have read z[target] before it is overwritten
    const A k = scale, inverse = k / sum;
    team.map(
        z, [=](A v, int i) { return exponential(v - largest) * inverse - (i == target ? k : A(0)); }, z, Index{});
  }
};
}  // namespace

void cross_entropy(const Context& context, const Tensor& logits, const Tensor& targets, const Tensor& loss, double scale,
                   WithGradient with_gradient) {
  AF_CHECK(targets.numel() == logits.rows() && loss.numel() == logits.rows(), "cross_entropy: logits {}, targets {}, loss {}", logits.shape.str(),
           targets.shape.str(), loss.shape.str());
  dispatch_accumulator(logits.dtype, [&](auto type) {
    using A = typename decltype(type)::type;
    for_each_row(context.device, logits.rows(), logits.cols(),
                 CrossEntropy<A>{rows_of<A>(logits), targets.as<std::int32_t>(), loss.as<A>(), A(scale), with_gradient == WithGradient::yes});
  });
}

}  // namespace af
