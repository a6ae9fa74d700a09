#include "core/ops/matmul.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/ops/matmul_cblas.h"
#include "tests/core/matmul_fixture.h"

// OpenBLAS, which products are compared with, may wait for its threads at libgomp's barriers: ThreadSanitizer does not see them.
extern "C" const char* __tsan_default_suppressions() { return "race:libopenblas"; }

namespace af {
namespace {
using testing::Machine;
using testing::Owned;
constexpr double kUntouched = -12345;  // fills the gaps between rows

struct Case {
  std::int64_t m, n, k;
  Trans ta = Trans::no, tb = Trans::no;
  Accumulate accumulate = Accumulate::no;
  DType a = DType::f32, b = DType::f32, c = DType::f32;
};

// Runs it on random factors with strided rows and compares with the sum in fp64 over the very numbers that are stored.
void expect_product(const Case& t, int threads,
                    void (*multiply)(const Context&, const Tensor&, Trans, const Tensor&, Trans, const Tensor&, Accumulate)) {
  const bool ta = t.ta == Trans::yes, tb = t.tb == Trans::yes;
  Owned a(ta ? Shape{t.k, t.m} : Shape{t.m, t.k}, t.a, 5), b(tb ? Shape{t.n, t.k} : Shape{t.k, t.n}, t.b, 3), c({t.m, t.n}, t.c, 7, kUntouched);
  a.randomize(1), b.randomize(2);
  if (t.accumulate == Accumulate::yes) c.randomize(3);
  std::vector<double> expected(std::size_t(t.m * t.n)), size(expected.size());
  for (std::int64_t i = 0; i < t.m; ++i)
    for (std::int64_t j = 0; j < t.n; ++j) {
      double sum = t.accumulate == Accumulate::yes ? c.get(i, j) : 0, absolute = std::abs(sum);
      for (std::int64_t k = 0; k < t.k; ++k) {
        const double product = (ta ? a.get(k, i) : a.get(i, k)) * (tb ? b.get(j, k) : b.get(k, j));
        sum += product, absolute += std::abs(product);
      }
      expected[std::size_t(i * t.n + j)] = sum, size[std::size_t(i * t.n + j)] = absolute;
    }
  Machine machine(threads);
  multiply(machine.context, a.tensor, t.ta, b.tensor, t.tb, c.tensor, t.accumulate);
  // The sum's own error (fp32: chains of at most 512 terms), then one rounding to the stored type.
  const double sum_error = t.c == DType::f64 ? 1e-14 : 4e-6, rounding = t.c == DType::bf16 ? 1.0 / 256 : 0;
  for (std::int64_t i = 0; i < t.m; ++i)
    for (std::int64_t j = 0; j < c.tensor.stride && i * c.tensor.stride + j < t.m * c.tensor.stride; ++j) {
      if (j >= t.n) {
        ASSERT_EQ(c.get(i, j), c.tensor.dtype == DType::bf16 ? simd::widen(simd::narrow<simd::bf16_bits>(kUntouched)) : kUntouched)
            << "a gap between rows was written";
        continue;
      }
      const double want = expected[std::size_t(i * t.n + j)];
      ASSERT_NEAR(c.get(i, j), want, sum_error * size[std::size_t(i * t.n + j)] + rounding * std::abs(want))
          << "m " << t.m << " n " << t.n << " k " << t.k << " trans " << ta << tb << " element " << i << ", " << j;
    }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  const std::int64_t shapes[][3] = {{1, 1, 1},      {1, 48, 7},   {2, 3, 5},     {7, 17, 33},   {8, 48, 16},   {9, 49, 17},
                                    {17, 100, 513}, {64, 31, 64}, {130, 65, 96}, {33, 300, 20}, {600, 50, 30}, {5, 700, 129},
                                    {0, 4, 4},      {4, 0, 4},    {3, 5, 0},     {12, 40, 1100}};
  const DType types[][3] = {{DType::f32, DType::f32, DType::f32},   {DType::bf16, DType::bf16, DType::bf16}, {DType::bf16, DType::f32, DType::f32},
                            {DType::f32, DType::bf16, DType::bf16}, {DType::f64, DType::f64, DType::f64},    {DType::bf16, DType::bf16, DType::f32}};
  for (auto& s : shapes)
    for (auto& d : types)
      for (int flags = 0; flags < 8; ++flags)
        all.push_back({s[0], s[1], s[2], flags & 1 ? Trans::yes : Trans::no, flags & 2 ? Trans::yes : Trans::no,
                       flags & 4 ? Accumulate::yes : Accumulate::no, d[0], d[1], d[2]});
  return all;
}

TEST(Matmul, IsTheSumOfProducts) {
  for (const Case& t : cases()) {
    expect_product(t, 2, matmul);
    if (HasFatalFailure()) return;
  }
}

TEST(Matmul, LibraryFallbackIsTheSumOfProducts) {
  const std::vector<Case> all = cases();
  for (std::size_t i = 0; i < all.size(); i += 5) {  // 5 shares no factor with the 8 flags and 6 types: each meets each
    expect_product(all[i], 1, matmul_cblas);
    if (HasFatalFailure()) return;
  }
}

// Row i of C: the same bits whatever the number of rows and of threads, and whatever columns are computed beside it.
TEST(Matmul, BitsOfARowDependOnTheRowAlone) {
  if (!simd::kFast) GTEST_SKIP() << "matmul is the library's on this CPU";
  constexpr std::int64_t kRows = 512, kCols = 241, kDepth = 1111;
  for (DType type : {DType::f32, DType::bf16, DType::f64})
    for (int flags = 0; flags < (type == DType::f64 ? 3 : 8); ++flags) {
      const Trans ta = flags & 1 ? Trans::yes : Trans::no, tb = flags & 2 ? Trans::yes : Trans::no;
      const Accumulate accumulate = flags & 4 ? Accumulate::yes : Accumulate::no;
      Owned a(flags & 1 ? Shape{kDepth, kRows} : Shape{kRows, kDepth}, type), b(flags & 2 ? Shape{kCols, kDepth} : Shape{kDepth, kCols}, type);
      Owned start({kRows, kCols}, type), whole({kRows, kCols}, type);
      a.randomize(1), b.randomize(2), start.randomize(3);
      whole.randomize(3);
      Machine one(1);
      matmul(one.context, a.tensor, ta, b.tensor, tb, whole.tensor, accumulate);
      for (std::int64_t m = 1; m <= 41; ++m) {
        const std::int64_t rows = m <= 40 ? m : kRows, cols = m % 5 == 4 ? kCols - m : kCols;
        Owned part({kRows, kCols}, type);
        part.memory = start.memory, part.tensor.data = part.memory.data();
        Machine machine(1 + int(m % 3));
        // The last rows, so that a row's place in its group of rows moves too.
        const Tensor rows_of_a = flags & 1 ? a.tensor.slice_cols(kRows - rows, kRows) : a.tensor.slice_rows(kRows - rows, kRows);
        const Tensor cols_of_b = flags & 2 ? b.tensor.slice_rows(0, cols) : b.tensor.slice_cols(0, cols);
        matmul(machine.context, rows_of_a, ta, cols_of_b, tb, part.tensor.slice_rows(kRows - rows, kRows).slice_cols(0, cols), accumulate);
        const auto same = [&](const Owned& x, std::int64_t i, std::int64_t from, std::int64_t to) {
          const std::size_t size = size_of(type), at = std::size_t(i * kCols + from) * size;
          const char *a_bytes = reinterpret_cast<const char*>(part.memory.data()) + at,
                     *b_bytes = reinterpret_cast<const char*>(x.memory.data()) + at;
          return std::memcmp(a_bytes, b_bytes, std::size_t(to - from) * size) == 0;
        };
        for (std::int64_t i = 0; i < kRows; ++i) {
          const std::int64_t computed = i >= kRows - rows ? cols : 0;
          ASSERT_TRUE(same(whole, i, 0, computed) && same(start, i, computed, kCols))
              << name_of(type) << " flags " << flags << " rows " << rows << " cols " << cols << " row " << i;
        }
      }
    }
}

// A bf16 C is read, added to in fp32 over all pieces of K, and rounded once.
TEST(Matmul, RoundsBf16Once) {
  constexpr std::int64_t kRows = 21, kCols = 70, kDepth = 1700;
  for (Accumulate accumulate : {Accumulate::no, Accumulate::yes}) {
    Owned a({kRows, kDepth}, DType::bf16), b({kCols, kDepth}, DType::bf16), c({kRows, kCols}, DType::bf16), exact({kRows, kCols}, DType::f32);
    a.randomize(1), b.randomize(2), c.randomize(3, 30);
    for (std::int64_t i = 0; i < kRows; ++i)
      for (std::int64_t j = 0; j < kCols; ++j) exact.set(i, j, c.get(i, j));
    Machine machine;
    matmul(machine.context, a.tensor, Trans::no, b.tensor, Trans::yes, c.tensor, accumulate);
    matmul(machine.context, a.tensor, Trans::no, b.tensor, Trans::yes, exact.tensor, accumulate);
    for (std::int64_t i = 0; i < kRows; ++i)
      for (std::int64_t j = 0; j < kCols; ++j) ASSERT_EQ(c.get(i, j), simd::widen(simd::narrow<simd::bf16_bits>(exact.get(i, j)))) << i << ", " << j;
  }
}

TEST(Matmul, CarriesNaNAndInfinityToTheirRowsAlone) {
  for (DType type : {DType::f32, DType::bf16}) {
    Owned a({20, 40}, type), b({40, 50}, type), c({20, 50}, type);
    a.randomize(1), b.randomize(2);
    a.set(3, 7, std::numeric_limits<double>::quiet_NaN());
    a.set(11, 39, std::numeric_limits<double>::infinity());
    Machine machine;
    matmul(machine.context, a.tensor, Trans::no, b.tensor, Trans::no, c.tensor, Accumulate::no);
    for (std::int64_t i = 0; i < 20; ++i)
      for (std::int64_t j = 0; j < 50; ++j) {
        ASSERT_EQ(std::isnan(c.get(i, j)), i == 3);
        ASSERT_EQ(std::isinf(c.get(i, j)), i == 11);
      }
  }
}

TEST(Matmul, RefusesWrongShapesAndTypes) {
  Owned a({3, 4}, DType::f32), b({5, 4}, DType::f32), c({3, 5}, DType::f32), d({3, 5}, DType::f64);
  Machine machine;
  EXPECT_THROW(matmul(machine.context, a.tensor, Trans::no, b.tensor, Trans::no, c.tensor, Accumulate::no), InternalError);
  EXPECT_THROW(matmul(machine.context, a.tensor, Trans::yes, b.tensor, Trans::yes, c.tensor, Accumulate::no), InternalError);
  EXPECT_THROW(matmul(machine.context, a.tensor, Trans::no, b.tensor, Trans::yes, d.tensor, Accumulate::no), InternalError);
}

}  // namespace
}  // namespace af
