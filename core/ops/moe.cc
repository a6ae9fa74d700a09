#include "core/ops/moe.h"

#include "core/kernel.h"
#include "core/ops/counting_sort.h"

namespace af {
namespace {

template <class A>
struct Route {
  Rows<const A> logits;
  Rows<A> probs;
  std::int32_t* expert;
  A* weight;
  A* log_sum_exp;
  int k;
  bool norm;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    const auto z = logits[r];
    const auto p = probs[r];
    const A largest = team.max([](A v) { return v; }, z);
    const A sum = team.sum([=](A v) { return exponential(v - largest); }, z);
    const A inverse = A(1) / sum;
    team.map(
        p, [=](A v) { return exponential(v - largest) * inverse; }, z);
    std::int32_t* const experts = expert + r * k;
    A* const weights = weight + r * k;
    A* const lse = log_sum_exp + r;
    team.once([=] { *lse = largest + logarithm(sum); });

    // The next choice is the largest that comes after the last one in the order (probability down, id up).
    A last = -lowest<A>(), chosen = 0;
    int last_id = -1;
    for (int slot = 0; slot < k; ++slot) {
      const A best = team.max([=](A v, int i) { return v < last || (v == last && i > last_id) ? v : lowest<A>(); }, p, Index{});
      const int least = -team.max([=](A v, int i) { return v == best && (v < last || i > last_id) ? -i : -(1 << 30); }, p, Index{});
      const int id = least < (1 << 30) ? least : slot;  // of NaN logits: any valid experts
      const A w = least < (1 << 30) ? best : sum;
      team.once([=] {
        experts[slot] = id;
        weights[slot] = w;
      });
      chosen += w;
      last = best;
      last_id = id;
    }
    const int n = k;
    if (norm)
      team.once([=] {
        AF_ROLLED
        for (int slot = 0; slot < n; ++slot) weights[slot] /= chosen;
      });
  }
};

// dL/dp_e = d_probs_e + (from the chosen) g_s, with weights w_s = p_s: g = dw_s; w_s = p_s / sum: g = (dw_s - sum_j dw_j w_j) / sum.
// dlogit_e = p_e (dL/dp_e - sum_j p_j dL/dp_j) + 2 z lse p_e.
template <class A>
struct RouteGradient {
  Rows<const A> probs;
  const std::int32_t* expert;
  const A *weight, *log_sum_exp, *d_weight;
  Rows<const A> d_probs;  // p == nullptr: none
  i64 tokens_per_group;
  Rows<A> d_logits;
  int k;
  bool norm;
  A z_scale;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    const auto p = probs[r];
    const auto out = d_logits[r];
    const std::int32_t* const e = expert + r * k;
    const A *const w = weight + r * k, *const dw = d_weight + r * k;
    A mean = 0, sum = 1, dot = 0;
    if (norm) {
      sum = 0;
      for (int s = 0; s < k; ++s) {
        sum += p[e[s]];
        mean += dw[s] * w[s];
      }
    }
    const A shift = mean, inverse = A(1) / sum;
    for (int s = 0; s < k; ++s) dot += p[e[s]] * ((dw[s] - shift) * inverse);
    const A z = A(2) * z_scale * log_sum_exp[r];
    if (d_probs.p) {
      const auto dp_row = d_probs[r / tokens_per_group];
      const A mean_dp = dot + team.sum([](A v, A dp) { return v * dp; }, p, dp_row);
      team.map(
          out, [=](A v, A dp) { return v * (dp - mean_dp + z); }, p, dp_row);
    } else {
      team.map(
          out, [=](A v) { return v * (z - dot); }, p);
    }
    team.barrier();
    const int n = k;
    team.once([=] {
      for (int s = 0; s < n; ++s) out.p[e[s]] += p[e[s]] * ((dw[s] - shift) * inverse);
    });
  }
};

// Counts and sums of one chunk of a group's tokens; then of the group, chunk by chunk.
struct Load {
  i64* counts;
  double* sums;
  i64 experts;
  AF_HD Row<i64> count(i64 r) const { return {counts + r * experts, experts}; }
  AF_HD Row<double> sum(i64 r) const { return {sums + r * experts, experts}; }
};
template <class A>
struct ChunkLoad {
  Rows<const A> probs;
  const std::int32_t* expert;
  int k;
  RowChunks chunks;  // of a group's tokens
  Load load;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    const i64 group = r / chunks.count, chunk = r % chunks.count;
    const i64 begin = group * chunks.rows + chunks.begin(chunk), end = group * chunks.rows + chunks.end(chunk);
    const auto count = load.count(r);
    const auto p = probs;
    team.map(
        count, [](int) { return i64(0); }, Index{});
    team.map(
        load.sum(r), [](int) { return 0.0; }, Index{});
    team.add_rows(load.sum(r), load.sum(r), end - begin, [=](i64 j) { return p[begin + j]; });
    team.barrier();
    const std::int32_t* const e = expert;
    const int n = k;
    team.once([=] {
      for (i64 i = begin * n; i < end * n; ++i) ++count.p[e[i]];
    });
  }
};
struct GroupLoad {
  Load chunk, group;
  i64 chunks;
  template <class Team>
  AF_HD void operator()(i64 g, Team team) const {
    const Load from = chunk;
    const i64 first = g * chunks;
    team.add_rows(group.count(g), Zero{}, chunks, [=](i64 j) { return from.count(first + j); });
    team.add_rows(group.sum(g), Zero{}, chunks, [=](i64 j) { return from.sum(first + j); });
  }
};

template <class T>
struct PermuteRows {
  Rows<const T> x;
  const std::int32_t* source;
  int k;
  Rows<T> out;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    team.copy(out[r], x[source[r] / k]);
  }
};
template <class T>
struct Gather {
  const T* x;
  const std::int32_t* from;
  T* out;
  AF_HD void operator()(i64 i) const { out[i] = x[from[i]]; }
};
template <class T>
struct UnpermuteSum {
  Rows<const T> y;
  const std::int32_t* position;
  int k;
  Rows<const T> base;  // p == nullptr: 0
  Rows<T> out;
  template <class Team>
  AF_HD void operator()(i64 token, Team team) const {
    const auto rows = y;
    const std::int32_t* const p = position + token * k;
    const auto in = [=](i64 slot) { return rows[p[slot]]; };
    if (base.p) {
      team.add_rows(out[token], base[token], k, in);
    } else {
      team.add_rows(out[token], Zero{}, k, in);
    }
  }
};

void gather(const Context& context, const Tensor& x, const Tensor& from, const Tensor& out) {
  AF_CHECK(from.numel() == out.numel() && x.contiguous() && out.contiguous(), "scalars {} taken by {} to {}",
           x.shape.str(), from.shape.str(), out.shape.str());
  dispatch(x.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for_each(context.device, out.numel(), Gather<T>{x.as<const T>(), from.as<std::int32_t>(), out.as<T>()});
  });
}
}  // namespace

void route(const Context& context, const Tensor& logits, int top_k, NormTopk norm, const Tensor& probs, const Tensor& expert, const Tensor& weight,
           const Tensor& log_sum_exp) {
  const i64 tokens = logits.rows();
  AF_CHECK(probs.shape == logits.shape && 1 <= top_k && top_k <= logits.cols(), "route: logits {}, probs {}, top {}", logits.shape.str(),
           probs.shape.str(), top_k);
  AF_CHECK(expert.numel() == tokens * top_k && weight.numel() == tokens * top_k && log_sum_exp.numel() == tokens,
           "route: expert {}, weight {}, log_sum_exp {} for {} tokens", expert.shape.str(), weight.shape.str(), log_sum_exp.shape.str(), tokens);
  dispatch_accumulator(logits.dtype, [&](auto type) {
    using A = typename decltype(type)::type;
    for_each_row(context.device, tokens, logits.cols(),
                 Route<A>{rows_of<const A>(logits), rows_of<A>(probs), expert.as<std::int32_t>(), weight.as<A>(), log_sum_exp.as<A>(), top_k,
                          norm == NormTopk::yes});
  });
}

void route_backward(const Context& context, const Tensor& d_weight, const RouteBackward& p, const Tensor& d_logits) {
  const i64 tokens = p.probs.rows(), groups = p.d_probs.empty() ? 1 : p.d_probs.rows();
  AF_CHECK(d_logits.shape == p.probs.shape && d_weight.numel() == p.expert.numel() && p.weight.numel() == p.expert.numel(),
           "route_backward: d_logits {}, probs {}, d_weight {}, expert {}", d_logits.shape.str(), p.probs.shape.str(), d_weight.shape.str(),
           p.expert.shape.str());
  AF_CHECK(groups > 0 && tokens % groups == 0 && (p.d_probs.empty() || p.d_probs.cols() == p.probs.cols()), "route_backward: d_probs {} for probs {}",
           p.d_probs.shape.str(), p.probs.shape.str());
  if (tokens == 0) return;
  dispatch_accumulator(p.probs.dtype, [&](auto type) {
    using A = typename decltype(type)::type;
    const Rows<const A> d_probs = p.d_probs.empty() ? Rows<const A>{} : rows_of<const A>(p.d_probs);
    for_each_row(
        context.device, tokens, p.probs.cols(),
        RouteGradient<A>{rows_of<const A>(p.probs), p.expert.as<std::int32_t>(), p.weight.as<A>(), p.log_sum_exp.as<A>(), d_weight.as<A>(), d_probs,
                         tokens / groups, rows_of<A>(d_logits), int(p.expert.numel() / tokens), p.norm == NormTopk::yes, A(p.z_scale)});
  });
}

void expert_load(const Context& context, const Tensor& probs, const Tensor& expert, const Tensor& counts, const Tensor& prob_sums) {
  const i64 tokens = probs.rows(), experts = probs.cols(), groups = counts.rows();
  AF_CHECK(groups > 0 && tokens % groups == 0 && counts.shape == prob_sums.shape && counts.cols() == experts && counts.contiguous() &&
               prob_sums.contiguous(),
           "expert_load: probs {}, counts {}, prob_sums {}", probs.shape.str(), counts.shape.str(), prob_sums.shape.str());
  const RowChunks chunks(tokens / groups, experts);
  const Arena::Scope scope(context.scratch);
  const Load partial{context.scratch.tensor({groups * chunks.count, experts}, DType::i64).as<i64>(),
                     context.scratch.tensor({groups * chunks.count, experts}, DType::f64).as<double>(), experts};
  dispatch_accumulator(probs.dtype, [&](auto type) {
    using A = typename decltype(type)::type;
    for_each_row(context.device, groups * chunks.count, experts,
                 ChunkLoad<A>{rows_of<const A>(probs), expert.as<std::int32_t>(), tokens ? int(expert.numel() / tokens) : 0, chunks, partial},
                 chunks.size);
  });
  for_each_row(context.device, groups, experts, GroupLoad{partial, {counts.as<i64>(), prob_sums.as<double>(), experts}, chunks.count}, chunks.count);
}

void permutation(const Context& context, const Tensor& expert, std::int64_t num_experts, const Tensor& source, const Tensor& position,
                 std::int64_t* offsets) {
  AF_CHECK(source.numel() == expert.numel() && position.numel() == expert.numel(), "permutation: expert {}, source {}, position {}",
           expert.shape.str(), source.shape.str(), position.shape.str());
  const Arena::Scope scope(context.scratch);
  const CountingSort sorted = counting_sort(context, expert, num_experts, source, position);
  copy_to_host(context.device, offsets, sorted.offsets, std::size_t(num_experts + 1) * sizeof *offsets);
}

void permute_rows(const Context& context, const Tensor& x, const Tensor& source, int top_k, const Tensor& out) {
  AF_CHECK(x.cols() == out.cols() && source.numel() == out.rows(), "permute_rows: x {}, source {}, out {}", x.shape.str(), source.shape.str(),
           out.shape.str());
  dispatch(x.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for_each_row(context.device, out.rows(), out.cols(), PermuteRows<T>{rows_of<const T>(x), source.as<std::int32_t>(), top_k, rows_of<T>(out)});
  });
}

void permute_scalars(const Context& context, const Tensor& weight, const Tensor& source, const Tensor& out) { gather(context, weight, source, out); }
void unpermute_scalars(const Context& context, const Tensor& x, const Tensor& position, const Tensor& out) { gather(context, x, position, out); }

void unpermute_sum(const Context& context, const Tensor& y, const Tensor& position, const Tensor& base, const Tensor& out) {
  AF_CHECK(y.cols() == out.cols() && position.rows() == out.rows() && (base.empty() || base.shape == out.shape),
           "unpermute_sum: y {}, position {}, base {}, out {}", y.shape.str(), position.shape.str(), base.shape.str(), out.shape.str());
  dispatch(y.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const Rows<const T> add_to = base.empty() ? Rows<const T>{} : rows_of<const T>(base);
    const int k = int(position.cols());
    for_each_row(context.device, out.rows(), out.cols(),
                 UnpermuteSum<T>{rows_of<const T>(y), position.as<std::int32_t>(), k, add_to, rows_of<T>(out)}, k + 1);
  });
}

}  // namespace af
