#include "core/ops/attention.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "tests/core/matmul_fixture.h"

namespace af {
namespace {
using testing::Machine;
using testing::Owned;
using Segments = std::vector<AttentionSegment>;

struct Sizes {
  std::int64_t tq, tk, hq, hkv, d;
};

// Everything that one forward and backward reads and writes, with gaps between rows as in a fused qkv tensor.
struct Problem {
  Sizes n;
  Segments segments;
  double scale;
  Owned q, k, v, o, lse, d_o, dq, dk, dv;
  static DType sums(DType type) { return accumulator_of(type); }
  Problem(const Sizes& n, DType type, const Segments& segments)
      : n(n),
        segments(segments),
        scale(1.3 / std::sqrt(double(n.d))),
        q({n.tq, n.hq, n.d}, type, 9),
        k({n.tk, n.hkv, n.d}, type, 4),
        v({n.tk, n.hkv, n.d}, type, 2),
        o({n.tq, n.hq, n.d}, type, 1, 77),
        lse({n.tq, n.hq}, sums(type), 0, 77),
        d_o({n.tq, n.hq, n.d}, type, 3),
        dq({n.tq, n.hq, n.d}, type, 6, 77),
        dk({n.tk, n.hkv, n.d}, type, 5, 77),
        dv({n.tk, n.hkv, n.d}, type, 8, 77) {
    q.randomize(1), k.randomize(2), v.randomize(3), d_o.randomize(4);
  }
  void forward(int threads = 2) {
    Machine machine(threads);
    attention_forward(machine.context, q.tensor, k.tensor, v.tensor, segments, scale, o.tensor, lse.tensor);
  }
  void backward(int threads = 2) {
    Machine machine(threads);
    attention_backward(machine.context, d_o.tensor, q.tensor, k.tensor, v.tensor, o.tensor, lse.tensor, segments, scale, dq.tensor, dk.tensor,
                       dv.tensor);
  }
};

// The formulas as they stand in the paper's standard attention, in fp64 over the stored numbers.
struct Reference {
  std::vector<double> o, lse, dq, dk, dv;
  explicit Reference(const Problem& p) {
    const auto [tq, tk, hq, hkv, d] = p.n;
    o.assign(std::size_t(tq * hq * d), 0), dq = o;
    dk.assign(std::size_t(tk * hkv * d), 0), dv = dk;
    lse.assign(std::size_t(tq * hq), -std::numeric_limits<double>::infinity());
    for (const AttentionSegment& s : p.segments)
      for (std::int64_t i = s.q_begin; i < s.q_end; ++i)
        for (std::int64_t h = 0; h < hq; ++h) {
          const std::int64_t end = s.k_end - (s.q_end - 1 - i), kh = h / (hq / hkv);
          if (end <= s.k_begin) continue;
          std::vector<double> w(std::size_t(end - s.k_begin)), dw(w.size());
          double most = -1e300, sum = 0, delta = 0;
          for (std::int64_t j = s.k_begin; j < end; ++j) {
            double x = 0;
            for (std::int64_t e = 0; e < d; ++e) x += p.q.get(i, h * d + e) * p.k.get(j, kh * d + e);
            w[std::size_t(j - s.k_begin)] = x * p.scale;
            most = std::max(most, x * p.scale);
          }
          for (double& x : w) x = std::exp(x - most), sum += x;
          for (double& x : w) x /= sum;
          lse[std::size_t(i * hq + h)] = most + std::log(sum);
          for (std::int64_t j = s.k_begin; j < end; ++j)
            for (std::int64_t e = 0; e < d; ++e) {
              const double wj = w[std::size_t(j - s.k_begin)], g = p.d_o.get(i, h * d + e);
              o[std::size_t((i * hq + h) * d + e)] += wj * p.v.get(j, kh * d + e);
              dv[std::size_t((j * hkv + kh) * d + e)] += wj * g;
              dw[std::size_t(j - s.k_begin)] += g * p.v.get(j, kh * d + e);
            }
          for (std::size_t j = 0; j < w.size(); ++j) delta += w[j] * dw[j];
          for (std::int64_t j = s.k_begin; j < end; ++j)
            for (std::int64_t e = 0; e < d; ++e) {
              const double ds = p.scale * w[std::size_t(j - s.k_begin)] * (dw[std::size_t(j - s.k_begin)] - delta);
              dq[std::size_t((i * hq + h) * d + e)] += ds * p.k.get(j, kh * d + e);
              dk[std::size_t((j * hkv + kh) * d + e)] += ds * p.q.get(i, h * d + e);
            }
        }
  }
};

// Rows against the reference, relative to the largest element; gaps between rows untouched.
void expect_near(const Owned& got, const std::vector<double>& want, double tolerance, const char* name) {
  const std::int64_t cols = got.tensor.cols();
  double size = 0.1;  // where all are zero: what the numbers that cancel amount to
  for (double x : want) size = std::isinf(x) ? size : std::max(size, std::abs(x));
  for (std::int64_t i = 0; i < got.tensor.rows(); ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      const double g = got.get(i, j), w = want[std::size_t(i * cols + j)];
      if (g != w) {  // infinities are equal, not near
        ASSERT_NEAR(g, w, tolerance * size) << name << " row " << i << " column " << j;
      }
    }
    for (std::int64_t j = cols; j < got.tensor.stride; ++j)
      ASSERT_EQ(got.get(i, j) == 77 || got.get(i, j) == 0, true) << name << ": a gap was written";
  }
}

Segments documents(std::initializer_list<std::int64_t> lengths) {
  Segments all;
  std::int64_t begin = 0;
  for (std::int64_t length : lengths) all.push_back({begin, begin + length, begin, begin + length}), begin += length;
  return all;
}

struct Case {
  const char* name;
  Sizes n;
  Segments segments;
};
std::vector<Case> cases() {
  Segments many;
  std::int64_t at = 0;
  for (std::int64_t i = 0; i < 50; ++i) many.push_back({at, at + i + 1, at, at + i + 1}), at += i + 1;
  return {{"one token", {1, 1, 1, 1, 8}, documents({1})},
          {"one long document", {500, 500, 2, 1, 64}, documents({500})},
          {"four heads a key head, head_dim 20", {333, 333, 8, 2, 20}, documents({100, 1, 230, 2})},
          {"head_dim 24", {130, 130, 3, 3, 24}, documents({65, 65})},
          {"head_dim 80", {260, 260, 4, 2, 80}, documents({197, 63})},
          {"head_dim 128", {450, 450, 4, 1, 128}, documents({10, 440})},
          {"head_dim 5", {40, 40, 2, 1, 5}, documents({33, 7})},
          {"many short documents", {at, at, 4, 2, 16}, many},
          {"rows in no document", {300, 290, 2, 1, 16}, {{20, 60, 30, 70}, {250, 290, 200, 240}}},
          {"more keys than queries", {64, 500, 2, 2, 32}, {{0, 40, 10, 300}, {40, 64, 300, 500}}},
          {"context parallel: two chunks of each document, keys shared",
           {200, 700, 4, 2, 24},
           {{0, 50, 0, 50}, {50, 100, 0, 350}, {100, 130, 350, 600}, {130, 200, 350, 700}}},
          {"overlapping keys with other begins, in any order", {120, 420, 2, 1, 16}, {{60, 120, 100, 420}, {0, 30, 0, 230}, {30, 60, 210, 250}}},
          {"queries that see no key, empty ranges", {60, 60, 2, 1, 16}, {{0, 20, 0, 5}, {20, 30, 7, 7}, {40, 40, 10, 20}, {40, 60, 20, 40}}}};
}

TEST(Attention, EqualsTheNaiveFormulas) {
  for (const Case& c : cases())
    for (DType type : {DType::f64, DType::f32, DType::bf16}) {
      SCOPED_TRACE(std::string(c.name) + " in " + name_of(type));
      Problem p(c.n, type, c.segments);
      p.forward();
      Reference r(p);
      // fp32: a few roundings of sums of some hundred terms; bf16: the rounding of what is stored (o enters the backward).
      const double tolerance = type == DType::f64 ? 1e-13 : type == DType::f32 ? 2e-6 : 6e-3;
      expect_near(p.o, r.o, tolerance, "o");
      expect_near(p.lse, r.lse, type == DType::f64 ? 1e-14 : 1e-6, "lse");
      p.backward();
      expect_near(p.dq, r.dq, tolerance, "dq");
      expect_near(p.dk, r.dk, tolerance, "dk");
      expect_near(p.dv, r.dv, tolerance, "dv");
      if (HasFatalFailure()) return;
    }
}

// d/dx of sum(o * d_o), central differences in fp64.
TEST(Attention, GradientsAreFiniteDifferences) {
  const Segments segments = {{0, 9, 0, 9}, {9, 20, 3, 25}, {21, 24, 25, 33}};
  Problem p({26, 33, 4, 2, 6}, DType::f64, segments);
  p.forward();
  p.backward();
  const auto loss = [&] {
    p.forward();
    double sum = 0;
    for (std::int64_t i = 0; i < p.n.tq; ++i)
      for (std::int64_t j = 0; j < p.n.hq * p.n.d; ++j) sum += p.o.get(i, j) * p.d_o.get(i, j);
    return sum;
  };
  struct Pair {
    Owned *x, *dx;
  };
  for (Pair pair : {Pair{&p.q, &p.dq}, Pair{&p.k, &p.dk}, Pair{&p.v, &p.dv}})
    for (std::int64_t e = 0; e < pair.x->tensor.numel(); e += 7) {
      const std::int64_t i = e / pair.x->tensor.cols(), j = e % pair.x->tensor.cols();
      const double x = pair.x->get(i, j), step = 1e-5;
      pair.x->set(i, j, x + step);
      const double up = loss();
      pair.x->set(i, j, x - step);
      const double down = loss();
      pair.x->set(i, j, x);
      ASSERT_NEAR((up - down) / (2 * step), pair.dx->get(i, j), 1e-8) << i << ", " << j;
    }
}

bool same_bytes(const Owned& a, const Owned& b) {
  return a.memory.size() == b.memory.size() && !std::memcmp(a.memory.data(), b.memory.data(), a.memory.size() * 8);
}

TEST(Attention, BitsDoNotDependOnThreads) {
  for (const Case& c : cases())
    for (DType type : {DType::f32, DType::bf16}) {
      Problem one(c.n, type, c.segments);
      one.forward(1), one.backward(1);
      for (int threads : {2, 3, 7}) {
        Problem p(c.n, type, c.segments);
        p.forward(threads), p.backward(threads);
        EXPECT_TRUE(same_bytes(p.o, one.o) && same_bytes(p.lse, one.lse)) << c.name << " forward, " << threads << " threads";
        EXPECT_TRUE(same_bytes(p.dq, one.dq) && same_bytes(p.dk, one.dk) && same_bytes(p.dv, one.dv))
            << c.name << " backward, " << threads << " threads";
      }
    }
}

// A document packed among others gives the bits of the same document alone; so do its gradients.
TEST(Attention, BitsDoNotDependOnTheNeighbours) {
  const std::int64_t lengths[] = {3, 500, 1, 41, 8, 130, 64};
  for (DType type : {DType::f32, DType::bf16, DType::f64}) {
    Problem packed({747, 747, 4, 2, 40}, type, documents({3, 500, 1, 41, 8, 130, 64}));
    packed.forward(), packed.backward();
    std::int64_t begin = 0;
    for (std::int64_t length : lengths) {
      Problem alone({length, length, 4, 2, 40}, type, documents({length}));
      for (auto [to, from] : {std::pair{&alone.q, &packed.q}, {&alone.k, &packed.k}, {&alone.v, &packed.v}, {&alone.d_o, &packed.d_o}})
        for (std::int64_t i = 0; i < length; ++i)
          for (std::int64_t j = 0; j < to->tensor.cols(); ++j) to->set(i, j, from->get(begin + i, j));
      alone.forward(1), alone.backward(1);
      for (auto [a, b] :
           {std::pair{&alone.o, &packed.o}, {&alone.lse, &packed.lse}, {&alone.dq, &packed.dq}, {&alone.dk, &packed.dk}, {&alone.dv, &packed.dv}})
        for (std::int64_t i = 0; i < length; ++i)
          for (std::int64_t j = 0; j < a->tensor.cols(); ++j)
            ASSERT_EQ(a->get(i, j), b->get(begin + i, j)) << name_of(type) << " document of " << length;
      begin += length;
    }
  }
}

// Context parallelism: the queries of one document in chunks on different ranks, each with the keys up to its own end.
TEST(Attention, ForwardOfAChunkHasTheBitsOfTheWhole) {
  Problem whole({400, 400, 4, 2, 64}, DType::f32, documents({400}));
  whole.forward();
  Problem chunks({400, 400, 4, 2, 64}, DType::f32, {{300, 400, 0, 400}, {0, 101, 0, 101}, {101, 300, 0, 300}});
  chunks.forward();
  EXPECT_TRUE(same_bytes(whole.o, chunks.o) && same_bytes(whole.lse, chunks.lse));
}

// Scores far apart: exp neither overflows nor loses the row; the largest wins.
TEST(Attention, LargeScores) {
  Problem p({40, 40, 1, 1, 16}, DType::f32, documents({40}));
  p.q.randomize(5, 40), p.k.randomize(6, 40);
  p.forward();
  p.backward();
  Reference r(p);
  expect_near(p.o, r.o, 1e-3, "o");  // scores of some thousands carry an error of 1e-4 each
  for (std::int64_t i = 0; i < 40 * 16; ++i) ASSERT_TRUE(std::isfinite(p.dq.get(i / 16, i % 16)));
}

TEST(Attention, RefusesWrongRanges) {
  EXPECT_THROW(Problem({10, 10, 2, 1, 8}, DType::f32, {{0, 11, 0, 10}}).forward(), InternalError);
  EXPECT_THROW(Problem({10, 10, 2, 1, 8}, DType::f32, {{0, 5, 0, 5}, {4, 9, 5, 10}}).forward(), InternalError);
  EXPECT_THROW(Problem({10, 10, 3, 2, 8}, DType::f32, {}).forward(), InternalError);
}

template <class T>
void expect_exp2(double tolerance) {
  double worst = 0;
  for (double x = -130; x < 100; x += 0.0137) {
    T in[simd::kLanes<T>], out[simd::kLanes<T>];
    for (T& lane : in) lane = T(x);
    simd::store(out, simd::exp2<T>(simd::load(in)));
    if (sizeof(T) == 4 && T(x) < -126) {
      ASSERT_EQ(out[0], 0);
    } else {
      const double exact = double(std::exp2((long double)(T(x))));
      worst = std::max(worst, std::abs(double(out[0]) / exact - 1));
    }
  }
  EXPECT_LT(worst, tolerance);
  for (double x : {-std::numeric_limits<double>::infinity(), -2000.0}) EXPECT_EQ(simd::exp2<T>(simd::splat(T(x)))[0], 0);
  EXPECT_TRUE(std::isnan(simd::exp2<T>(simd::splat(std::numeric_limits<T>::quiet_NaN()))[0]));
}
TEST(Simd, Exp2) {
  expect_exp2<float>(1.1e-7);
  expect_exp2<double>(3e-16);
}

}  // namespace
}  // namespace af
