// Tensor- and sequence-parallel layers on 1 to 8 ranks against loops over the whole matrices in fp64.
#include "parallel/tensor_parallel.h"

#include <gtest/gtest.h>

#include "parallel/delayed_gradients.h"
#include "parallel/embedding.h"
#include "parallel/linear.h"
#include "parallel/lm_head.h"
#include "tests/parallel/ranks.h"

namespace af {
namespace {
using namespace testing;

struct Case {
  int ranks;
  bool sequence;
  DType dtype;
};
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const DType dtype : kFloats)
    for (const int n : {1, 2, 4, 8})
      for (const bool sequence : {false, true}) all.push_back({n, sequence, dtype});
  return all;
}
std::string text(const Case& c) { return fmt::format("{} ranks{}, {}", c.ranks, c.sequence ? ", sequence parallel" : "", name_of(c.dtype)); }

// The rows of a stream [T, cols] that a rank holds between blocks.
Numbers own_rows(const Numbers& all, i64 cols, const TensorParallel& tp) {
  const i64 tokens = i64(all.size()) / cols, first = tp.first_token(tokens);
  return take_rows(all, cols, first, first + tp.local_tokens(tokens));
}
// The stream as all ranks hold it: with sequence parallelism their parts, without it the same on all.
Numbers stream(const Results& results, const std::string& name, const Case& c) {
  if (c.sequence) return results.joined(name, c.ranks);
  for (int r = 1; r < c.ranks; ++r) EXPECT_EQ(results.of(name, r), results.of(name, 0)) << name << " differs between ranks";
  return results.of(name, 0);
}
// A matrix that the ranks have columns of.
Numbers columns(const Results& results, const std::string& name, int ranks, i64 rows) {
  Numbers t;
  for (int r = 0; r < ranks; ++r) {
    const Numbers& part = results.of(name, r);
    const Numbers flipped = transposed(part, i64(part.size()) / rows);
    t.insert(t.end(), flipped.begin(), flipped.end());
  }
  return transposed(t, rows);
}
Numbers plus(Numbers a, double b) {
  for (double& x : a) x += b;
  return a;
}

// <leave(x), y> = <x, enter(y)>, and both are what they should be, bit by bit.
TEST(TensorParallel, LeaveIsTheAdjointOfEnter) {
  for (const int n : {1, 2, 3, 4, 8})
    for (const bool sequence : {false, true}) {
      const i64 tokens = 24, h = 5;
      const Numbers y_all = normal(tokens * h, 77);
      std::vector<Numbers> x;
      for (int r = 0; r < n; ++r) x.push_back(normal(tokens * h, unsigned(r)));
      Numbers sum(std::size_t(tokens * h), 0.);
      for (const Numbers& part : x)
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];  // in rank order
      Results results;
      on_ranks(n, [&](const Comm& world) {
        const TensorParallel tp(world, sequence);
        OnCpu cpu;
        const Numbers own = own_rows(y_all, h, tp);
        const Operand y({i64(own.size()) / h, h}, DType::f64, own), left(y.tensor().shape, DType::f64);
        const Tensor part = tp.part_of_sum(cpu.scratch, left);
        AF_CHECK(part.rows() == tokens, "{} rows", part.rows());
        std::copy(x[std::size_t(world.rank())].begin(), x[std::size_t(world.rank())].end(), part.as<double>());
        tp.leave(part, left).wait();
        const Tensor entered = tp.enter(cpu.scratch, y);
        const Numbers all(entered.as<double>(), entered.as<double>() + entered.numel());
        results.put("left", world.rank(), left);
        results.put("entered", world.rank(), all);
        // Without sequence parallelism all ranks hold the same stream: it is counted once.
        results.put("left.y", world.rank(), {sequence || world.rank() == 0 ? dot(left.values(), own) : 0});
        results.put("x.entered", world.rank(), {dot(x[std::size_t(world.rank())], all)});
      });
      const Case c{n, sequence, DType::f64};
      SCOPED_TRACE(text(c));
      EXPECT_EQ(stream(results, "left", c), sum);
      for (int r = 0; r < n; ++r) EXPECT_EQ(results.of("entered", r), y_all);
      double a = 0, b = 0;
      for (int r = 0; r < n; ++r) a += results.of("left.y", r)[0], b += results.of("x.entered", r)[0];
      EXPECT_NEAR(a, b, 1e-12 * std::abs(a));
    }
}

// Sizes that do not divide: the parts differ by one.
TEST(TensorParallel, ColumnParallelLinear) {
  const i64 tokens = 24, k = 19, n = 27;
  for (const Case& c : cases())
    for (const bool delayed : {false, true}) {
      const Numbers x = rounded(normal(tokens * k, 1), c.dtype), w = rounded(normal(n * k, 2), c.dtype), dy = rounded(normal(tokens * n, 3), c.dtype);
      Results results;
      on_ranks(c.ranks, [&](const Comm& world) {
        const TensorParallel tp(world, c.sequence);
        OnCpu cpu;
        const Range range = part_of(n, c.ranks, world.rank());
        OwnParameter weight(row_parameter("w", "w", {n, k}, range), w, 0.5, c.dtype);
        const ColumnParallelLinear linear(&weight.parameter, tp);
        const Operand own_x({tp.local_tokens(tokens), k}, c.dtype, own_rows(x, k, tp)), y({tokens, range.size()}, c.dtype);
        const Operand own_dy(y.tensor().shape, c.dtype, take_cols(dy, n, range.begin, range.end)), dx(own_x.tensor().shape, c.dtype);
        linear.forward(cpu, tp.enter(cpu.scratch, own_x), y);
        DelayedGradients later;
        linear.backward(cpu, own_dy, own_x, dx, delayed ? &later : nullptr);
        if (delayed) {
          AF_CHECK(weight.gradient.values() == Numbers(std::size_t(range.size() * k), 0.5), "the weight gradient was to come later");
          later.run(cpu);
        }
        results.put("y", world.rank(), y);
        results.put("dx", world.rank(), dx);
        results.put("dw", world.rank(), weight.gradient);
      });
      SCOPED_TRACE(text(c) + (delayed ? ", delayed" : ""));
      expect_close(columns(results, "y", c.ranks, tokens), product(x, w, k), c.dtype);
      expect_close(stream(results, "dx", c), product(dy, transposed(w, k), n), c.dtype);
      expect_close(results.joined("dw", c.ranks), plus(product(transposed(dy, n), transposed(x, k), tokens), 0.5),
                   c.dtype == DType::bf16 ? DType::f32 : c.dtype);
    }
}

TEST(TensorParallel, RowParallelLinear) {
  const i64 tokens = 24, k = 27, n = 19;
  for (const Case& c : cases())
    for (const bool delayed : {false, true}) {
      const Numbers x = rounded(normal(tokens * k, 1), c.dtype), w = rounded(normal(n * k, 2), c.dtype), dy = rounded(normal(tokens * n, 3), c.dtype);
      const Numbers before = rounded(normal(tokens * n, 4), c.dtype);
      Results results;
      on_ranks(c.ranks, [&](const Comm& world) {
        const TensorParallel tp(world, c.sequence);
        OnCpu cpu;
        Arena lasting(Device{}, "lasting");
        const Range range = part_of(k, c.ranks, world.rank());
        OwnParameter weight(column_parameter("w", "w", {n, k}, range), w, 0.5, c.dtype);
        const RowParallelLinear linear(&weight.parameter, tp);
        const Operand own_x({tokens, range.size()}, c.dtype, take_cols(x, k, range.begin, range.end)), dx(own_x.tensor().shape, c.dtype);
        const Operand y({tp.local_tokens(tokens), n}, c.dtype, own_rows(before, n, tp));
        Operand own_dy(y.tensor().shape, c.dtype, own_rows(dy, n, tp));
        linear.forward_add(cpu, own_x, y);
        DelayedGradients later;
        linear.backward(cpu, lasting, own_dy, own_x, dx, delayed ? &later : nullptr);
        if (delayed) {
          AF_CHECK(weight.gradient.values() == Numbers(std::size_t(n * range.size()), 0.5), "the weight gradient was to come later");
          own_dy.set(normal(own_dy.tensor().numel(), 9));  // it goes on changing
          later.run(cpu);
        }
        results.put("y", world.rank(), y);
        results.put("dx", world.rank(), dx);
        results.put("dw", world.rank(), weight.gradient);
      });
      SCOPED_TRACE(text(c) + (delayed ? ", delayed" : ""));
      Numbers y = product(x, w, k);
      for (std::size_t i = 0; i < y.size(); ++i) y[i] += before[i];
      expect_close(stream(results, "y", c), y, c.dtype);
      expect_close(columns(results, "dx", c.ranks, tokens), product(dy, transposed(w, k), n), c.dtype);
      expect_close(columns(results, "dw", c.ranks, n), plus(product(transposed(dy, n), transposed(x, k), tokens), 0.5),
                   c.dtype == DType::bf16 ? DType::f32 : c.dtype);
    }
}

constexpr i64 kVocabularies[] = {7, 61, 67, 96};

// A look-up and its transpose are exact: the other ranks add zeros, and each row's tokens come in their order.
TEST(TensorParallel, VocabParallelEmbedding) {
  const i64 tokens = 40, h = 6;
  for (const Case& c : cases())
    for (const i64 v : kVocabularies) {
      if (v < c.ranks) continue;
      const Numbers table = rounded(normal(v * h, 1), c.dtype), ids = below(tokens, 2, int(v)), dx = rounded(normal(tokens * h, 3), c.dtype);
      Results results;
      on_ranks(c.ranks, [&](const Comm& world) {
        const TensorParallel tp(world, c.sequence);
        OnCpu cpu;
        OwnParameter weight(row_parameter("e", "e", {v, h}, part_of(v, c.ranks, world.rank())), table, 0, c.dtype);
        const VocabParallelEmbedding embedding(&weight.parameter, tp);
        const Operand id({tokens}, DType::i32, ids), x({tp.local_tokens(tokens), h}, c.dtype), own_dx(x.tensor().shape, c.dtype, own_rows(dx, h, tp));
        embedding.forward(cpu, id, x);
        embedding.backward(cpu, own_dx, id);
        results.put("x", world.rank(), x);
        results.put("dw", world.rank(), weight.gradient);
      });
      SCOPED_TRACE(fmt::format("{}, vocabulary {}", text(c), v));
      Numbers x, dw(std::size_t(v * h), 0.);
      for (i64 t = 0; t < tokens; ++t)
        for (i64 j = 0; j < h; ++j) {
          const std::size_t at = std::size_t(i64(ids[std::size_t(t)]) * h + j);
          x.push_back(table[at]);
          dw[at] += dx[std::size_t(t * h + j)];
          if (c.dtype != DType::f64) dw[at] = float(dw[at]);
        }
      EXPECT_EQ(stream(results, "x", c), x);
      EXPECT_EQ(results.joined("dw", c.ranks), dw);
    }
}

struct Head {  // the whole in fp64
  Numbers loss, dx, dw;
};
Head head_of(const Numbers& x, const Numbers& w, const Numbers& targets, i64 h, double scale) {
  const i64 tokens = i64(targets.size()), v = i64(w.size()) / h;
  Head head{Numbers(std::size_t(tokens), 0.), Numbers(x.size(), 0.), Numbers(w.size(), 0.)};
  Numbers z = product(x, w, h);
  for (i64 t = 0; t < tokens; ++t) {
    double* row = z.data() + t * v;
    const i64 target = i64(targets[std::size_t(t)]);
    if (target < 0) continue;
    const double largest = *std::max_element(row, row + v);
    double sum = 0;
    for (i64 i = 0; i < v; ++i) sum += std::exp(row[i] - largest);
    head.loss[std::size_t(t)] = largest + std::log(sum) - row[target];
    for (i64 i = 0; i < v; ++i) {
      const double d = scale * (std::exp(row[i] - largest) / sum - (i == target));
      for (i64 j = 0; j < h; ++j) {
        head.dx[std::size_t(t * h + j)] += d * w[std::size_t(i * h + j)];
        head.dw[std::size_t(i * h + j)] += d * x[std::size_t(t * h + j)];
      }
    }
  }
  return head;
}

void check_head(const Case& c, i64 tokens, i64 v) {
  const i64 h = 6;
  const double scale = 0.25;
  const Numbers x = rounded(normal(tokens * h, 1), c.dtype), w = rounded(normal(v * h, 2), c.dtype);
  Numbers targets = below(tokens, 3, int(v));
  for (i64 t = 0; t < tokens; t += 5) targets[std::size_t(t)] = -1;
  const DType acc = accumulator_of(c.dtype);
  Results results;
  on_ranks(c.ranks, [&](const Comm& world) {
    const TensorParallel tp(world, c.sequence);
    OnCpu cpu;
    OwnParameter weight(row_parameter("w", "w", {v, h}, part_of(v, c.ranks, world.rank())), w, 0.5, c.dtype);
    const LmHead head(&weight.parameter, v, tp);
    const i64 local = tp.local_tokens(tokens);
    const Operand own_x({local, h}, c.dtype, own_rows(x, h, tp)), target({tokens}, DType::i32, targets), loss({local}, acc), dx({local, h}, c.dtype);
    head.forward(cpu, own_x, target, scale, loss, {});
    const Numbers loss_alone = loss.values();
    AF_CHECK(weight.gradient.values() == Numbers(std::size_t(weight.parameter.numel()), 0.5), "a gradient that was not asked for");
    head.forward(cpu, own_x, target, scale, loss, dx);
    AF_CHECK(loss.values() == loss_alone, "the loss depends on the gradient");
    results.put("loss", world.rank(), loss);
    results.put("dx", world.rank(), dx);
    results.put("dw", world.rank(), weight.gradient);
  });
  SCOPED_TRACE(fmt::format("{}, {} tokens, vocabulary {}", text(c), tokens, v));
  const Head whole = head_of(x, w, targets, h, scale);
  const DType exact = c.dtype == DType::bf16 ? DType::f32 : c.dtype;
  expect_close(stream(results, "loss", c), whole.loss, exact);
  expect_close(stream(results, "dx", c), whole.dx, c.dtype);
  expect_close(results.joined("dw", c.ranks), plus(whole.dw, 0.5), exact);
}

TEST(TensorParallel, LmHead) {
  for (const Case& c : cases())
    for (const i64 v : kVocabularies)
      if (v >= c.ranks) check_head(c, 40, v);
}

// More tokens than one chunk of logits has: two whole ones and a rest.
TEST(TensorParallel, LmHeadInChunks) {
  ASSERT_EQ(LmHead::chunk_tokens(67, 8), 2048);
  for (const int n : {1, 2, 8})
    for (const bool sequence : {false, true}) check_head({n, sequence, DType::f64}, 4104, 67);
  check_head({4, true, DType::bf16}, 2056, 67);
}

// A chunk of a real vocabulary: 64 Mi bytes of logits on each rank, whatever the number of ranks.
TEST(TensorParallel, ChunksOfALargeVocabulary) {
  EXPECT_EQ(LmHead::chunk_tokens(151936, 1), 64);
  EXPECT_EQ(LmHead::chunk_tokens(151936, 8), 832);
  for (const i64 ranks : {1, 2, 4, 8, 64})
    for (const i64 v : {1000, 32000, 151936, 1000000}) {
      const i64 tokens = LmHead::chunk_tokens(v, ranks);
      EXPECT_TRUE(tokens % 64 == 0 && tokens >= 64 && tokens <= 2048);
      EXPECT_LE(double(tokens) * double(v) / double(ranks), tokens == 64 ? 64. * 1000000 : double(16 << 20));
    }
}

TEST(TensorParallel, WholeLogitsAreOfOneRank) {
  EXPECT_THROW(run_ranks(2, {}, [](const Comm& world) {
                 OnCpu cpu;
                 OwnParameter weight(row_parameter("w", "w", {8, 4}, part_of(8, 2, world.rank())), normal(32, 1), 0, DType::f32);
                 const Operand x = random_operand({3, 4}, DType::f32, 1), logits({3, 8}, DType::f32);
                 LmHead(&weight.parameter, 8, {world, false}).logits(cpu, x, logits);
               }),
               InternalError);
}

}  // namespace
}  // namespace af
