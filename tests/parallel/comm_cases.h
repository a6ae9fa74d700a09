// Every operation of a Comm against plain loops, bit by bit: inputs are functions of (rank, index), so that each rank knows
// what all others hold. Used by ranks as threads (comm_test.cc) and as processes (tests/mpi/mpi_probe.cc).
#pragma once
#include <cstring>
#include <type_traits>
#include <vector>

#include "core/kernel.h"
#include "parallel/comm.h"

namespace af::test {

inline std::uint64_t scramble(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Numbers of many magnitudes: sums of floats depend on the order.
template <class T>
T number(std::uint64_t seed, int rank, std::int64_t i) {
  const std::uint64_t h = scramble(seed * 1000003 + std::uint64_t(rank) * 7919 + std::uint64_t(i) + 1);
  const int integer = int(h % 2001) - 1000;
  if constexpr (std::is_integral_v<T>) {
    return T(integer);
  } else {
    return T(float(integer) * 1.37e-3f * float(1 << (h >> 32) % 12));
  }
}

template <class T>
std::vector<T> numbers(std::uint64_t seed, int rank, std::int64_t n) {
  std::vector<T> x(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) x[std::size_t(i)] = number<T>(seed, rank, i);
  return x;
}

// Element i summed over ranks 0, 1, ..., or the greatest.
template <class T>
T reduced(std::uint64_t seed, int ranks, std::int64_t i, Reduction reduction) {
  Acc<T> a = number<T>(seed, 0, i);
  for (int r = 1; r < ranks; ++r) {
    const Acc<T> v = number<T>(seed, r, i);
    a = reduction == Reduction::sum ? Acc<T>(a + v) : v > a ? v : a;
  }
  return T(a);
}

template <class T>
Tensor tensor_of(std::vector<T>& x, std::int64_t cols = 1) {
  return Tensor(x.data(), dtype_of<T>::value, {std::int64_t(x.size()) / cols, cols});
}

template <class T>
void expect_same(const std::vector<T>& got, const std::vector<T>& wanted, const char* what, const Comm& comm) {
  AF_CHECK(got.size() == wanted.size() && (got.empty() || std::memcmp(got.data(), wanted.data(), got.size() * sizeof(T)) == 0),
           "{} of {} {} on {} ranks of axis {}: wrong on rank {}", what, got.size(), name_of(dtype_of<T>::value), comm.size(), name_of(comm.axis()),
           comm.rank());
}

template <class T>
void check_reductions(const Comm& comm, std::int64_t c, std::uint64_t seed) {
  const int n = comm.size(), me = comm.rank();
  for (Reduction reduction : {Reduction::sum, Reduction::max}) {
    std::vector<T> x = numbers<T>(seed, me, c), wanted(x.size());
    for (std::int64_t i = 0; i < c; ++i) wanted[std::size_t(i)] = reduced<T>(seed, n, i, reduction);
    comm.all_reduce(tensor_of(x), reduction);
    expect_same(x, wanted, "all_reduce", comm);
  }
  std::vector<T> x = numbers<T>(seed + 1, me, n * c), out(static_cast<std::size_t>(c)), wanted(out.size());
  for (std::int64_t i = 0; i < c; ++i) wanted[std::size_t(i)] = reduced<T>(seed + 1, n, me * c + i, Reduction::sum);
  const std::vector<T> before = x;
  comm.reduce_scatter(tensor_of(x), tensor_of(out));
  expect_same(out, wanted, "reduce_scatter", comm);
  expect_same(x, before, "the input of reduce_scatter", comm);
  comm.reduce_scatter(tensor_of(x), tensor_of(x).slice_rows(me * c, (me + 1) * c));
  expect_same({x.begin() + me * c, x.begin() + (me + 1) * c}, wanted, "reduce_scatter in place", comm);

  const std::int64_t cols = 3;
  std::vector<std::int64_t> rows;
  std::int64_t all = 0, mine = 0;
  for (int r = 0; r < n; ++r) {
    rows.push_back((r * 7 + c) % 5 == 0 ? 0 : (r * 7 + c) % 5 + c / 4);
    if (r == me) mine = all;
    all += rows.back();
  }
  x = numbers<T>(seed + 2, me, all * cols);
  out.assign(std::size_t(rows[std::size_t(me)] * cols), T(0));
  wanted = out;
  for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] = reduced<T>(seed + 2, n, mine * cols + std::int64_t(i), Reduction::sum);
  comm.reduce_scatter_v(tensor_of(x, cols), tensor_of(out, cols), rows);
  expect_same(out, wanted, "reduce_scatter_v", comm);

  std::vector<T> gathered(std::size_t(all * cols)), wanted_all;
  for (int r = 0; r < n; ++r)
    for (std::int64_t i = 0; i < rows[std::size_t(r)] * cols; ++i) wanted_all.push_back(number<T>(seed + 3, r, i));
  out = numbers<T>(seed + 3, me, rows[std::size_t(me)] * cols);
  comm.all_gather_v(tensor_of(out, cols), tensor_of(gathered, cols), rows);
  expect_same(gathered, wanted_all, "all_gather_v", comm);
}

template <class T>
void check_moves(const Comm& comm, std::int64_t c, std::uint64_t seed) {
  const int n = comm.size(), me = comm.rank();
  std::vector<T> x = numbers<T>(seed, me, c), out(std::size_t(n * c)), wanted;
  for (int r = 0; r < n; ++r)
    for (std::int64_t i = 0; i < c; ++i) wanted.push_back(number<T>(seed, r, i));
  comm.all_gather(tensor_of(x), tensor_of(out));
  expect_same(out, wanted, "all_gather", comm);
  std::fill(out.begin(), out.end(), T(0));
  std::copy(x.begin(), x.end(), out.begin() + me * c);
  comm.all_gather(tensor_of(out).slice_rows(me * c, (me + 1) * c), tensor_of(out));
  expect_same(out, wanted, "all_gather in place", comm);

  for (int root : {0, n - 1, n / 2}) {
    x = numbers<T>(seed + 1, me, c);
    comm.broadcast(tensor_of(x), root);
    expect_same(x, numbers<T>(seed + 1, root, c), "broadcast", comm);
  }

  const std::int64_t cols = 2;
  auto rows_of = [&](int from, int to) { return (from * 3 + to * 5) % 4 == 1 || c == 0 ? 0 : (from * 3 + to * 5) % 4 + c / n; };
  std::vector<std::int64_t> sends, receives;
  std::int64_t leaving = 0;
  wanted.clear();
  for (int r = 0; r < n; ++r) {
    sends.push_back(rows_of(me, r)), receives.push_back(rows_of(r, me));
    leaving += sends.back();
    std::int64_t skipped = 0;
    for (int q = 0; q < me; ++q) skipped += rows_of(r, q);
    for (std::int64_t i = 0; i < receives.back() * cols; ++i) wanted.push_back(number<T>(seed + 2, r, skipped * cols + i));
  }
  x = numbers<T>(seed + 2, me, leaving * cols);
  out.assign(wanted.size(), T(0));
  comm.all_to_all_v(tensor_of(x, cols), sends, tensor_of(out, cols), receives);
  expect_same(out, wanted, "all_to_all_v", comm);

  if (n > 1) {  // two messages round the ring, the second received first in the program but matched in order
    std::vector<T> first = numbers<T>(seed + 3, me, c), second = numbers<T>(seed + 4, me, c + 1), a(first.size()), b(second.size());
    const int next = (me + 1) % n, previous = (me + n - 1) % n;
    Pending in_a = comm.receive(tensor_of(a), previous), in_b = comm.receive(tensor_of(b), previous);
    comm.barrier();
    Pending out_a = comm.send(tensor_of(first), next), out_b = comm.send(tensor_of(second), next);
    in_b.wait();
    in_a.wait();
    expect_same(a, numbers<T>(seed + 3, previous, c), "send", comm);
    expect_same(b, numbers<T>(seed + 4, previous, c + 1), "send", comm);
  }
}

// Sizes take every algorithm: none, fewer than ranks, small, in one piece, in several.
inline void check_every_operation(const Comm& comm, bool large) {
  for (std::int64_t c : {0, 1, 7, 300}) {
    check_reductions<float>(comm, c, 10), check_moves<float>(comm, c, 11);
    check_reductions<bf16>(comm, c, 12), check_moves<bf16>(comm, c, 13);
    check_reductions<double>(comm, c, 14), check_moves<double>(comm, c, 15);
    check_reductions<std::int32_t>(comm, c, 16), check_moves<std::int32_t>(comm, c, 17);
    check_reductions<std::int64_t>(comm, c, 18), check_moves<std::int64_t>(comm, c, 19);
  }
  check_reductions<float>(comm, 5000, 20);
  check_reductions<bf16>(comm, 3001, 21);
  if (large) check_reductions<float>(comm, 500003 / comm.size() + 1, 22), check_moves<float>(comm, 500003 / comm.size(), 23);
}

}  // namespace af::test
