#include "core/ops/adamw.h"

#include "core/kernel.h"

namespace af {
namespace {
constexpr i64 kChunk = 4096;

template <class A>
struct Coefficients {
  A gradient_scale, decay, one_minus_beta1, beta2, one_minus_beta2, step_size, inverse_root, eps;
};
template <class T>
struct AdamW {
  Rows<const Acc<T>> gradient;
  Rows<Acc<T>> master, m, v;
  Rows<T> param;  // p == nullptr: the parameter is the master itself
  Coefficients<Acc<T>> c;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    using A = Acc<T>;
    const auto k = c;
    const auto update = [=](A g, A p, A m1, A m2) {
      g *= k.gradient_scale;
      m1 += (g - m1) * k.one_minus_beta1;
      m2 = k.beta2 * m2 + k.one_minus_beta2 * g * g;
      p = p * k.decay - k.step_size * m1 / (root(m2) * k.inverse_root + k.eps);
      return vals(p, m1, m2, p);
    };
    if (param.p) {
      team.map(outs(master[r], m[r], v[r], param[r]), update, gradient[r], master[r], m[r], v[r]);
    } else {
      team.map(outs(master[r], m[r], v[r]), update, gradient[r], master[r], m[r], v[r]);
    }
  }
};

template <class T>
Rows<T> chunks_of(const Tensor& t) {
  const Row<T> row = row_of<T>(t);
  return {row.p, kChunk, kChunk, row.n};
}
}  // namespace

void adamw(const Context& context, const AdamWStep& step, const Tensor& gradient, const Tensor& master, const Tensor& m, const Tensor& v,
           const Tensor& param) {
  const i64 n = master.numel();
  AF_CHECK(gradient.numel() == n && m.numel() == n && v.numel() == n && param.numel() == n, "adamw: gradient {}, master {}, m {}, v {}, param {}",
           gradient.shape.str(), master.shape.str(), m.shape.str(), v.shape.str(), param.shape.str());
  AF_CHECK(step.step >= 1, "adamw: steps count from 1, not {}", step.step);
  dispatch(param.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using A = Acc<T>;
    const Coefficients<A> c{A(step.gradient_scale),
                            A(1 - step.lr * step.weight_decay),
                            A(1 - step.beta1),
                            A(step.beta2),
                            A(1 - step.beta2),
                            A(step.lr / (1 - std::pow(step.beta1, double(step.step)))),
                            A(1 / std::sqrt(1 - std::pow(step.beta2, double(step.step)))),
                            A(step.eps)};
    AdamW<T> f{chunks_of<const A>(gradient), chunks_of<A>(master), chunks_of<A>(m), chunks_of<A>(v), chunks_of<T>(param), c};
    if (param.data == master.data) f.param.p = nullptr;
    for_each_row(context.device, (n + kChunk - 1) / kChunk, kChunk, f);
  });
}

}  // namespace af
