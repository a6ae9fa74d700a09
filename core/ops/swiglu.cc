#include "core/ops/swiglu.h"

#include "core/kernel.h"

namespace af {
namespace {

template <class T>
struct SwiGlu {
  Rows<const T> gate_up;
  const Acc<T>* row_scale;
  Rows<T> y;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    using A = Acc<T>;
    const auto row = gate_up[r];
    const auto out = y[r];
    const i64 f = out.n;
    const A scale = row_scale ? row_scale[r] : A(1);
    team.map(
        out, [=](A g, A u) { return scale * (g * sigmoid(g) * u); }, row.part(0, f), row.part(f, f));
  }
};

// With s = sigmoid(g): dg = dy scale u s (1 + g (1 - s)), du = dy scale g s, dscale = sum of dy g s u.
template <class T>
struct SwiGluBackward {
  Rows<const T> dy, gate_up;
  const Acc<T>* row_scale;
  Rows<T> d_gate_up;
  Acc<T>* d_row_scale;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    using A = Acc<T>;
    const auto dy_row = dy[r], row = gate_up[r];
    const auto out = d_gate_up[r];
    const i64 f = dy_row.n;
    const auto gate = row.part(0, f), up = row.part(f, f);
    if (d_row_scale) {
      const A dot = team.sum([](A d, A g, A u) { return d * (g * sigmoid(g) * u); }, dy_row, gate, up);
      A* const to = d_row_scale + r;
      team.once([=] { *to = dot; });
    }
    const A scale = row_scale ? row_scale[r] : A(1);
    team.map(
        outs(out.part(0, f), out.part(f, f)),
        [=](A d, A g, A u) {
          const A s = sigmoid(g), e = d * scale;
          return vals(e * u * s * (A(1) + g * (A(1) - s)), e * g * s);
        },
        dy_row, gate, up);
  }
};
}  // namespace

void swiglu(const Context& context, const Tensor& gate_up, const Tensor& row_scale, const Tensor& y) {
  AF_CHECK(gate_up.rows() == y.rows() && gate_up.cols() == 2 * y.cols(), "swiglu: gate_up {}, y {}", gate_up.shape.str(), y.shape.str());
  AF_CHECK(row_scale.empty() || row_scale.numel() == y.rows(), "swiglu: {} scales for {} rows", row_scale.numel(), y.rows());
  dispatch(y.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for_each_row(context.device, y.rows(), y.cols(), SwiGlu<T>{rows_of<const T>(gate_up), pointer_or_null<const Acc<T>>(row_scale), rows_of<T>(y)});
  });
}

void swiglu_backward(const Context& context, const Tensor& dy, const Tensor& gate_up, const Tensor& row_scale, const Tensor& d_gate_up,
                     const Tensor& d_row_scale) {
  AF_CHECK(gate_up.rows() == dy.rows() && gate_up.cols() == 2 * dy.cols() && d_gate_up.shape == gate_up.shape,
           "swiglu_backward: dy {}, gate_up {}, d_gate_up {}", dy.shape.str(), gate_up.shape.str(), d_gate_up.shape.str());
  AF_CHECK(row_scale.empty() == d_row_scale.empty() && (row_scale.empty() || (row_scale.numel() == dy.rows() && d_row_scale.numel() == dy.rows())),
           "swiglu_backward: row_scale {} and d_row_scale {} for {} rows", row_scale.shape.str(), d_row_scale.shape.str(), dy.rows());
  dispatch(dy.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for_each_row(context.device, dy.rows(), dy.cols(),
                 SwiGluBackward<T>{rows_of<const T>(dy), rows_of<const T>(gate_up), pointer_or_null<const Acc<T>>(row_scale), rows_of<T>(d_gate_up),
                                   pointer_or_null<Acc<T>>(d_row_scale)});
  });
}

}  // namespace af
