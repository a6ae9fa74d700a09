#include "core/ops/norm.h"

#include "core/kernel.h"

namespace af {
namespace {

template <class T>
struct RmsNorm {
  Rows<const T> x;
  Row<const T> w;
  Rows<T> y;
  Acc<T>* rstd;
  Acc<T> eps;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    using A = Acc<T>;
    const auto row = x[r];
    const A s = A(1) / root(team.sum([](A v) { return v * v; }, row) / A(row.n) + eps);
    // x / rms is rounded to T before the weight, as in transformers
    team.map(
        y[r], [=](A v, A g) { return A(T(v * s)) * g; }, row, w);
    A* const out = rstd + r;
    team.once([=] { *out = s; });
  }
};

// With n = x / rms: dw = sum over rows of dy n, dx = (dy w - n mean(dy w n)) / rms. A team takes a chunk of rows.
template <class T>
struct RmsNormBackward {
  RowChunks chunks;
  Rows<const T> dy, x;
  Row<const T> w;
  const Acc<T>* rstd;
  Rows<T> dx;
  bool add;
  Rows<Acc<T>> partial;  // of dw, [chunks, H]
  template <class Team>
  AF_HD void operator()(i64 chunk, Team team) const {
    using A = Acc<T>;
    const auto dw = partial[chunk];
    team.map(
        dw, [](int) { return A(0); }, Index{});
    for (i64 r = chunks.begin(chunk); r < chunks.end(chunk); ++r) {
      const auto dy_row = dy[r], x_row = x[r];
      const auto out = dx[r];
      const A s = rstd[r];
      const A c = team.sum([](A d, A v, A g) { return d * g * v; }, dy_row, x_row, w) * s * s / A(x_row.n);
      if (add) {
        team.map(
            outs(out, dw), [=](A d, A v, A g, A p, A o) { return vals(o + s * (d * g - v * c), p + d * v * s); }, dy_row, x_row, w, dw, out);
      } else {
        team.map(
            outs(out, dw), [=](A d, A v, A g, A p) { return vals(s * (d * g - v * c), p + d * v * s); }, dy_row, x_row, w, dw);
      }
    }
  }
};

// Rows of x are (token, head). With n = w x / rms and halves a, b: y = [n_a cos - n_b sin, n_b cos + n_a sin].
template <class T>
struct Heads {
  T* p;
  i64 heads, d, stride;  // stride: from token to token
  AF_HD Row<T> operator[](i64 r) const { return {p + r / heads * stride + r % heads * d, d}; }
};
template <class T>
Heads<T> heads_of(const Tensor& t) {
  return {t.as<T>(), t.shape[1], t.shape[2], t.stride};
}
template <class A>
struct Angles {
  Rows<const A> cos, sin;
  const std::int32_t* positions;
  i64 heads;
  AF_HD i64 at(i64 r) const { return positions[r / heads]; }
};

template <class T>
struct HeadNormRopeForward {
  Heads<const T> x;
  Row<const T> w;
  Angles<Acc<T>> angles;
  Heads<T> y;
  Acc<T>* rstd;
  Acc<T> eps;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    using A = Acc<T>;
    const auto row = x[r], wr = w;
    const auto out = y[r];
    const i64 half = row.n / 2, at = angles.at(r);
    const A s = A(1) / root(team.sum([](A v) { return v * v; }, row) / A(row.n) + eps);
    team.map(
        outs(out.part(0, half), out.part(half, half)),
        [=](A a, A b, A wa, A wb, A c, A z) {
          const A na = A(T(a * s)) * wa, nb = A(T(b * s)) * wb;
          return vals(na * c - nb * z, nb * c + na * z);
        },
        row.part(0, half), row.part(half, half), wr.part(0, half), wr.part(half, half), angles.cos[at], angles.sin[at]);
    A* const to = rstd + r;
    team.once([=] { *to = s; });
  }
};

// The rotation's transpose gives dn; then as RmsNormBackward.
template <class T>
struct HeadNormRopeBackward {
  RowChunks chunks;
  Heads<const T> dy, x;
  Row<const T> w;
  Angles<Acc<T>> angles;
  const Acc<T>* rstd;
  Heads<T> dx;
  Rows<Acc<T>> partial;  // of dw, [chunks, D]
  template <class Team>
  AF_HD void operator()(i64 chunk, Team team) const {
    using A = Acc<T>;
    const i64 n = w.n, half = n / 2;
    const auto dw = partial[chunk];
    const auto dw_a = dw.part(0, half), dw_b = dw.part(half, half);
    const auto w_a = w.part(0, half), w_b = w.part(half, half);
    team.map(
        outs(dw_a, dw_b), [](int) { return vals(A(0), A(0)); }, Index{});
    for (i64 r = chunks.begin(chunk); r < chunks.end(chunk); ++r) {
      const auto dy_a = dy[r].part(0, half), dy_b = dy[r].part(half, half);
      const auto x_a = x[r].part(0, half), x_b = x[r].part(half, half);
      const auto cos = angles.cos[angles.at(r)], sin = angles.sin[angles.at(r)];
      const A s = rstd[r];
      const A dot = team.sum([](A da, A db, A xa, A xb, A wa, A wb, A c, A z) { return (da * c + db * z) * wa * xa + (db * c - da * z) * wb * xb; },
                             dy_a, dy_b, x_a, x_b, w_a, w_b, cos, sin);
      const A m = dot * s * s / A(n);
      team.map(
          outs(dx[r].part(0, half), dx[r].part(half, half), dw_a, dw_b),
          [=](A da, A db, A xa, A xb, A wa, A wb, A c, A z, A pa, A pb) {
            const A na = da * c + db * z, nb = db * c - da * z;
            return vals(s * (na * wa - xa * m), s * (nb * wb - xb * m), pa + na * xa * s, pb + nb * xb * s);
          },
          dy_a, dy_b, x_a, x_b, w_a, w_b, cos, sin, dw_a, dw_b);
    }
  }
};

template <class A>
Angles<A> angles_of(const HeadNormRope& p, const Tensor& x) {
  AF_CHECK(x.shape.rank == 3 && x.shape[2] % 2 == 0 && x.shape[2] == p.w.numel(), "heads {} with a norm weight {}", x.shape.str(), p.w.shape.str());
  AF_CHECK(p.positions.numel() == x.rows(), "{} positions for {} tokens", p.positions.numel(), x.rows());
  AF_CHECK(2 * p.cos.cols() == x.shape[2] && p.cos.shape == p.sin.shape, "RoPE tables {} and {} for heads {}", p.cos.shape.str(), p.sin.shape.str(),
           x.shape.str());
  return {rows_of<const A>(p.cos), rows_of<const A>(p.sin), p.positions.as<std::int32_t>(), x.shape[1]};
}
}  // namespace

void rms_norm(const Context& context, const Tensor& x, const Tensor& w, double eps, const Tensor& y, const Tensor& rstd) {
  AF_CHECK(x.shape == y.shape && w.numel() == x.cols() && rstd.numel() == x.rows(), "rms_norm: x {}, w {}, y {}, rstd {}", x.shape.str(),
           w.shape.str(), y.shape.str(), rstd.shape.str());
  dispatch(x.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for_each_row(context.device, x.rows(), x.cols(),
                 RmsNorm<T>{rows_of<const T>(x), row_of<const T>(w), rows_of<T>(y), rstd.as<Acc<T>>(), Acc<T>(eps)});
  });
}

void rms_norm_backward(const Context& context, const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd, const Tensor& dx,
                       Accumulate accumulate_dx, const Tensor& dw) {
  AF_CHECK(dy.shape == x.shape && dx.shape == x.shape && w.numel() == x.cols() && dw.numel() == x.cols() && rstd.numel() == x.rows(),
           "rms_norm_backward: dy {}, x {}, dx {}, w {}, dw {}", dy.shape.str(), x.shape.str(), dx.shape.str(), w.shape.str(), dw.shape.str());
  dispatch(x.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const RowChunks chunks(x.rows(), x.cols());
    const Arena::Scope scope(context.scratch);
    const Tensor partial = context.scratch.tensor({chunks.count, x.cols()}, dw.dtype);
    for_each_row(context.device, chunks.count, x.cols(),
                 RmsNormBackward<T>{chunks, rows_of<const T>(dy), rows_of<const T>(x), row_of<const T>(w), rstd.as<const Acc<T>>(), rows_of<T>(dx),
                                    accumulate_dx == Accumulate::yes, rows_of<Acc<T>>(partial)},
                 chunks.size);
    add_partials<Acc<T>>(context.device, partial, dw);
  });
}

void head_norm_rope(const Context& context, const Tensor& x, const HeadNormRope& p, const Tensor& y, const Tensor& rstd) {
  AF_CHECK(x.shape == y.shape && rstd.numel() == x.rows() * x.shape[1], "head_norm_rope: x {}, y {}, rstd {}", x.shape.str(), y.shape.str(),
           rstd.shape.str());
  dispatch(x.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto angles = angles_of<Acc<T>>(p, x);
    for_each_row(context.device, x.rows() * x.shape[1], x.shape[2],
                 HeadNormRopeForward<T>{heads_of<const T>(x), row_of<const T>(p.w), angles, heads_of<T>(y), rstd.as<Acc<T>>(), Acc<T>(p.eps)});
  });
}

void head_norm_rope_backward(const Context& context, const Tensor& dy, const Tensor& x, const HeadNormRope& p, const Tensor& rstd, const Tensor& dx,
                             const Tensor& dw) {
  AF_CHECK(dy.shape == x.shape && dx.shape == x.shape && dw.numel() == p.w.numel() && rstd.numel() == x.rows() * x.shape[1],
           "head_norm_rope_backward: dy {}, x {}, dx {}, dw {}", dy.shape.str(), x.shape.str(), dx.shape.str(), dw.shape.str());
  dispatch(x.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto angles = angles_of<Acc<T>>(p, x);
    const i64 rows = x.rows() * x.shape[1], d = x.shape[2];
    const RowChunks chunks(rows, d);
    const Arena::Scope scope(context.scratch);
    const Tensor partial = context.scratch.tensor({chunks.count, d}, dw.dtype);
    for_each_row(context.device, chunks.count, d,
                 HeadNormRopeBackward<T>{chunks, heads_of<const T>(dy), heads_of<const T>(x), row_of<const T>(p.w), angles, rstd.as<const Acc<T>>(),
                                         heads_of<T>(dx), rows_of<Acc<T>>(partial)},
                 chunks.size);
    add_partials<Acc<T>>(context.device, partial, dw);
  });
}

}  // namespace af
