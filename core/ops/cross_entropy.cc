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

template <class A>
struct Share {
  Rows<const A> logits;
  const std::int32_t* targets;
  i64 first_id;
  A* stats;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    const auto z = logits[r];
    const i64 entry = targets[r] - first_id;
    A* const to = stats + 3 * r;
    const A largest = team.max([](A v) { return v; }, z);
    const A sum = team.sum([=](A v) { return exponential(v - largest); }, z);
    const A at_target = entry >= 0 && entry < z.n ? z[entry] : lowest<A>();
    team.once([=] {
      to[0] = largest;
      to[1] = sum;
      to[2] = at_target;
    });
  }
};

template <class A>
struct Total {
  const A* stats;  // [ranks, R, 3]
  const std::int32_t* targets;
  i64 ranks, rows;
  A *loss, *total;
  AF_HD void operator()(i64 r) const {
    A largest = lowest<A>(), at_target = lowest<A>(), sum = 0;
    for (i64 i = 0; i < ranks; ++i) {
      const A* const s = stats + 3 * (i * rows + r);
      largest = s[0] > largest ? s[0] : largest;
      at_target = s[2] > at_target ? s[2] : at_target;
    }
    for (i64 i = 0; i < ranks; ++i) {
      const A* const s = stats + 3 * (i * rows + r);
      sum += s[1] * exponential(s[0] - largest);
    }
    loss[r] = targets[r] < 0 ? A(0) : (largest - at_target) + logarithm(sum);
    total[2 * r] = largest;
    total[2 * r + 1] = sum;
  }
};

template <class A>
struct ShareGradient {
  Rows<A> logits;
  const std::int32_t* targets;
  i64 first_id;
  const A* total;
  A scale;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    const auto z = logits[r];
    if (targets[r] < 0) {
      team.map(
          z, [](int) { return A(0); }, Index{});
      return;
    }
    const i64 entry = targets[r] - first_id;
    const A k = scale, largest = total[2 * r], inverse = k / total[2 * r + 1];
    team.map(
        z, [=](A v, int i) { return exponential(v - largest) * inverse - (i == entry ? k : A(0)); }, z, Index{});
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

void cross_entropy_share(const Context& context, const Tensor& logits, const Tensor& targets, std::int64_t first_id, const Tensor& stats) {
  AF_CHECK(targets.numel() == logits.rows() && stats.numel() == 3 * logits.rows() && stats.contiguous(), "cross_entropy_share: logits {}, targets {}, stats {}",
           logits.shape.str(), targets.shape.str(), stats.shape.str());
  dispatch_accumulator(logits.dtype, [&](auto type) {
    using A = typename decltype(type)::type;
    for_each_row(context.device, logits.rows(), logits.cols(),
                 Share<A>{rows_of<const A>(logits), targets.as<std::int32_t>(), first_id, stats.as<A>()});
  });
}

void cross_entropy_total(const Context& context, const Tensor& all_stats, const Tensor& targets, const Tensor& loss, const Tensor& total) {
  const i64 rows = targets.numel(), ranks = rows ? all_stats.numel() / (3 * rows) : 0;
  AF_CHECK(all_stats.numel() == 3 * ranks * rows && loss.numel() == rows && total.numel() == 2 * rows, "cross_entropy_total: stats {}, targets {}, loss {}",
           all_stats.shape.str(), targets.shape.str(), loss.shape.str());
  dispatch_accumulator(all_stats.dtype, [&](auto type) {
    using A = typename decltype(type)::type;
    for_each(context.device, rows, Total<A>{all_stats.as<A>(), targets.as<std::int32_t>(), ranks, rows, loss.as<A>(), total.as<A>()});
  });
}

void cross_entropy_share_gradient(const Context& context, const Tensor& logits, const Tensor& targets, std::int64_t first_id, const Tensor& total,
                                  double scale) {
  AF_CHECK(targets.numel() == logits.rows() && total.numel() == 2 * logits.rows(), "cross_entropy_share_gradient: logits {}, targets {}, total {}",
           logits.shape.str(), targets.shape.str(), total.shape.str());
  dispatch_accumulator(logits.dtype, [&](auto type) {
    using A = typename decltype(type)::type;
    for_each_row(context.device, logits.rows(), logits.cols(),
                 ShareGradient<A>{rows_of<A>(logits), targets.as<std::int32_t>(), first_id, total.as<A>(), A(scale)});
  });
}

}  // namespace af
