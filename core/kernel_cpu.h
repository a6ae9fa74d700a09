// The CPU's team: one thread, whose loops the compiler vectorises.
// A part of core/kernel.h, which is what to include.
#pragma once
#include "core/kernel_rows.h"

namespace af {

struct Thread : Reductions<Thread> {
  static constexpr i64 lanes = 32;   // of a sum: fixed, so that its order depends on the length alone
  static constexpr i64 block = 128;  // columns that add_rows keeps in the nearest cache

  // out[i] = f(in[i]...); several outputs: outs(a, b) and f returning vals(a, b). Outputs may be inputs.
  template <class... T, class F, class... X>
  AF_HD void map(Outs<T...> out, F f, X... in) const {
    AF_INDEPENDENT
    for (i64 i = 0; i < out.n; ++i) put(out, i, f(in[i]...));
  }
  template <class T, class F, class... X>
  AF_HD void map(Row<T> out, F f, X... in) const {
    map(outs(out), f, in...);
  }
  template <class T, class S>
  AF_HD void copy(Row<T> out, Row<S> in) const {  // of one type: the bits
    static_assert(std::is_same_v<T, std::remove_const_t<S>>);
    memcpy(out.p, in.p, std::size_t(out.n) * sizeof(T));
  }
  template <class R, class Op, class F, class X0, class... X>
  AF_HD R reduce(R start, Op op, F f, X0 first, X... in) const {
    R a[lanes];
    for (i64 l = 0; l < lanes; ++l) a[l] = start;
    i64 i = 0;
    for (; i + lanes <= first.n; i += lanes) {
      for (i64 l = 0; l < lanes; ++l) a[l] = op(a[l], f(first[i + l], in[i + l]...));
    }
    for (i64 l = 0; i + l < first.n; ++l) a[l] = op(a[l], f(first[i + l], in[i + l]...));
    for (i64 width = lanes / 2; width > 0; width /= 2)
      for (i64 l = 0; l < width; ++l) a[l] = op(a[l], a[l + width]);
    return a[0];
  }
  // out[i] = base[i] + in(0)[i] + in(1)[i] + ... + in(count - 1)[i], rounded once; base may be out.
  template <class T, class B, class F>
  AF_HD void add_rows(Row<T> out, B base, i64 count, F in) const {
    for (i64 from = 0; from < out.n; from += block) {
      const i64 width = out.n - from < block ? out.n - from : block;
      Acc<T> a[block];
      for (i64 l = 0; l < width; ++l) a[l] = base[from + l];
      for (i64 j = 0; j < count; ++j) {
        const auto row = in(j);
        for (i64 l = 0; l < width; ++l) a[l] += row[from + l];
      }
      for (i64 l = 0; l < width; ++l) out.p[from + l] = T(a[l]);
    }
  }
  template <class F>
  AF_HD void once(F f) const {  // one member of the team does it
    f();
  }
  AF_HD void barrier() const {}  // what members wrote before, all see after
};

}  // namespace af
