#include "core/ops/elementwise.h"

#include "core/kernel.h"

namespace af {
namespace {
constexpr i64 kChunk = 4096;  // elements per team

// Rows as they are, or, where all tensors are contiguous, chunks of the flat elements.
struct Layout {
  bool flat;
  i64 rows, cols;
  explicit Layout(const Tensor& t, bool contiguous) : flat(contiguous), rows(t.rows()), cols(t.cols()) {
    if (flat) rows = (t.numel() + kChunk - 1) / kChunk, cols = kChunk;
  }
  template <class T>
  Rows<T> of(const Tensor& t) const {
    return {t.as<T>(), cols, flat ? cols : t.stride, t.numel()};
  }
};

template <class T>
struct Fill {
  Rows<T> x;
  T value;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    const Acc<T> v = value;
    team.map(
        x[r], [=](int) { return v; }, Index{});
  }
};
template <class From, class To>
struct Convert {
  Rows<const From> from;
  Rows<To> to;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    team.map(
        to[r], [](Acc<From> v) { return Acc<To>(v); }, from[r]);
  }
};
template <class T>
struct Add {
  Rows<const T> a, b;
  Rows<T> out;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    team.map(
        out[r], [](Acc<T> a, Acc<T> b) { return a + b; }, a[r], b[r]);
  }
};
template <class T>
struct Scale {
  Rows<T> x;
  Acc<T> factor;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    const Acc<T> f = factor;
    team.map(
        x[r], [=](Acc<T> v) { return f * v; }, x[r]);
  }
};

// What is summed: in fp64 for every type.
struct Value {
  AF_HD double operator()(double v) const { return v; }
};
struct Square {
  AF_HD double operator()(double v) const { return v * v; }
};
template <class T, class F>
struct PartialSum {  // of about kChunk elements: several short rows, or a piece of a long vector
  Rows<const T> x;
  i64 rows, rows_per_chunk;
  double* partial;
  F f;
  template <class Team>
  AF_HD void operator()(i64 chunk, Team team) const {
    double sum = 0;
    const auto g = f;
    const i64 end = (chunk + 1) * rows_per_chunk < rows ? (chunk + 1) * rows_per_chunk : rows;
    for (i64 r = chunk * rows_per_chunk; r < end; ++r) sum += team.sum([=](Acc<T> v) { return g(v); }, x[r]);
    double* const to = partial + chunk;
    team.once([=] { *to = sum; });
  }
};
struct Total {
  Row<const double> partial;
  double* out;
  template <class Team>
  AF_HD void operator()(i64, Team team) const {
    const double sum = team.sum([](double v) { return v; }, partial);
    double* const to = out;
    team.once([=] { *to = sum; });
  }
};

template <class F>
double sum_of(const Context& context, const Tensor& x, F f) {
  // Cut by shape: a vector into pieces, a matrix into groups of rows.
  const Layout layout(x, x.cols() == 1 && x.contiguous());
  const i64 rows_per_chunk = layout.cols < kChunk ? kChunk / std::max<i64>(layout.cols, 1) : 1;
  const i64 chunks = (layout.rows + rows_per_chunk - 1) / rows_per_chunk;
  const Arena::Scope scope(context.scratch);
  const Tensor partial = context.scratch.tensor({chunks}, DType::f64), total = context.scratch.tensor({1}, DType::f64);
  dispatch(x.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for_each_row(context.device, chunks, layout.cols, PartialSum<T, F>{layout.of<const T>(x), layout.rows, rows_per_chunk, partial.as<double>(), f},
                 rows_per_chunk);
  });
  for_each_row(context.device, 1, chunks, Total{row_of<const double>(partial), total.as<double>()});
  double sum;
  copy_to_host(context.device, &sum, total.data, sizeof sum);
  return sum;
}
template <class I>
struct CopyIntegers {
  const I* from;
  I* to;
  AF_HD void operator()(i64 i) const { to[i] = from[i]; }
};
}  // namespace

void fill(const Context& context, const Tensor& x, double value) {
  const Layout layout(x, x.contiguous());
  const auto run = [&](auto type) {
    using T = typename decltype(type)::type;
    for_each_row(context.device, layout.rows, layout.cols, Fill<T>{layout.of<T>(x), T(value)});
  };
  if (x.dtype == DType::i32) return run(Type<std::int32_t>{});
  if (x.dtype == DType::i64) return run(Type<std::int64_t>{});
  dispatch(x.dtype, run);
}

void convert(const Context& context, const Tensor& from, const Tensor& to) {
  AF_CHECK(from.shape == to.shape, "convert: {} to {}", from.shape.str(), to.shape.str());
  const Layout layout(from, from.contiguous() && to.contiguous());
  dispatch(from.dtype, [&](auto from_type) {
    dispatch(to.dtype, [&](auto to_type) {
      using From = typename decltype(from_type)::type;
      using To = typename decltype(to_type)::type;
      for_each_row(context.device, layout.rows, layout.cols, Convert<From, To>{layout.of<const From>(from), layout.of<To>(to)});
    });
  });
}

void copy_integers(const Context& context, const Tensor& from, const Tensor& to) {
  AF_CHECK(from.numel() == to.numel() && from.contiguous() && to.contiguous(), "copy_integers: {} to {}", from.shape.str(), to.shape.str());
  if (from.dtype == DType::i64) for_each(context.device, from.numel(), CopyIntegers<i64>{from.as<const i64>(), to.as<i64>()});
  else for_each(context.device, from.numel(), CopyIntegers<std::int32_t>{from.as<const std::int32_t>(), to.as<std::int32_t>()});
}

void add(const Context& context, const Tensor& a, const Tensor& b, const Tensor& out) {
  AF_CHECK(a.shape == b.shape && a.shape == out.shape, "add: {} + {} = {}", a.shape.str(), b.shape.str(), out.shape.str());
  const Layout layout(a, a.contiguous() && b.contiguous() && out.contiguous());
  dispatch(a.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for_each_row(context.device, layout.rows, layout.cols, Add<T>{layout.of<const T>(a), layout.of<const T>(b), layout.of<T>(out)});
  });
}

void scale(const Context& context, const Tensor& x, double factor) {
  const Layout layout(x, x.contiguous());
  dispatch(x.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for_each_row(context.device, layout.rows, layout.cols, Scale<T>{layout.of<T>(x), Acc<T>(factor)});
  });
}

double sum_of_squares(const Context& context, const Tensor& x) { return sum_of(context, x, Square{}); }
double sum(const Context& context, const Tensor& x) { return sum_of(context, x, Value{}); }

}  // namespace af
