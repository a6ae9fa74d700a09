// What functors hand to their team: rows and other inputs, one or several outputs.
// A part of core/kernel.h, which is what to include.
#pragma once
#include "core/kernel_numbers.h"

namespace af {

constexpr int kPack = 8;  // values that one CUDA thread moves at once: 16 bytes of bf16
template <class T>
struct Pack {
  alignas(16) T v[kPack];
  AF_HD Acc<T> operator[](int j) const { return v[j]; }
};
template <class T>
struct Row {
  T* p;
  i64 n;
  AF_HD Acc<T> operator[](i64 i) const { return p[i]; }
  AF_HD bool aligned() const { return bits<std::uintptr_t>(p) % 16 == 0; }
  AF_HD Row part(i64 from, i64 count) const { return {p + from, count}; }
  AF_HD auto load(i64 i) const { return *reinterpret_cast<const Pack<std::remove_const_t<T>>*>(p + i); }
};
struct Index {  // an input: 0, 1, 2, ...
  struct At {
    int first;
    AF_HD int operator[](int j) const { return first + j; }
  };
  AF_HD int operator[](i64 i) const { return int(i); }
  AF_HD bool aligned() const { return true; }
  AF_HD At load(i64 i) const { return {int(i)}; }
};
struct Zero {  // an input: 0, 0, 0, ...
  AF_HD int operator[](i64) const { return 0; }
  AF_HD bool aligned() const { return true; }
  AF_HD Zero load(i64) const { return {}; }
};
template <class T>
struct Rows {
  T* p;
  i64 cols, stride;
  i64 n;  // elements in all: the last row may be shorter
  AF_HD Row<T> operator[](i64 r) const { return {p + r * stride, n - r * cols < cols ? n - r * cols : cols}; }
};
template <class T>
Rows<T> rows_of(const Tensor& t) {
  return {t.as<T>(), t.cols(), t.stride, t.numel()};
}
template <class T>
Row<T> row_of(const Tensor& t) {  // a vector
  AF_CHECK(t.contiguous(), "a vector is needed, not a strided {}", t.shape.str());
  return {t.as<T>(), t.numel()};
}
template <class T>
T* pointer_or_null(const Tensor& t) {
  AF_CHECK(t.contiguous(), "a contiguous tensor is needed, not a strided {}", t.shape.str());
  return t.empty() ? nullptr : t.as<T>();
}

template <class A, int N>
struct Vals {  // what a map with several outputs returns
  A v[N];
};
template <class A, class... B>
AF_HD Vals<A, 1 + sizeof...(B)> vals(A a, B... b) {
  return {{a, A(b)...}};
}
template <int k, class A>
AF_HD A pick(A a) {
  return a;
}
template <int k, class A, int N>
AF_HD A pick(const Vals<A, N>& v) {
  return v.v[k];
}
template <class T, class... Rest>
struct Outs {
  Row<T> head;
  Outs<Rest...> tail;
  i64 n;
  AF_HD bool aligned() const { return head.aligned() && tail.aligned(); }
};
template <class T>
struct Outs<T> {
  Row<T> head;
  i64 n;
  AF_HD bool aligned() const { return head.aligned(); }
};
template <class T>
AF_HD Outs<T> outs(Row<T> a) {
  return {a, a.n};
}
template <class T, class... R>
AF_HD Outs<T, R...> outs(Row<T> a, Row<R>... b) {
  return {a, outs(b...), a.n};
}
template <int k = 0, class T, class... R, class V>
AF_HD void put(const Outs<T, R...>& out, i64 i, const V& v) {
  out.head.p[i] = T(pick<k>(v));
  if constexpr (sizeof...(R) > 0) put<k + 1>(out.tail, i, v);
}

template <class Self>
struct Reductions {  // of the values f(in[i]...), the same bits for every member of the team
  template <class F, class... X>
  AF_HD auto sum(F f, X... in) const {
    using R = decltype(f(in[0]...));
    return self().reduce(
        R(0), [](R a, R b) { return a + b; }, f, in...);
  }
  template <class F, class... X>
  AF_HD auto max(F f, X... in) const {
    using R = decltype(f(in[0]...));
    return self().reduce(
        lowest<R>(), [](R a, R b) { return a < b ? b : a; }, f, in...);
  }

 private:
  AF_HD const Self& self() const { return static_cast<const Self&>(*this); }
};

}  // namespace af
