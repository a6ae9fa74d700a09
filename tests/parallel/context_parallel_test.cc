// Context parallelism: what moves, and attention over what came against attention over the whole.
#include "parallel/context_parallel.h"

#include <gtest/gtest.h>

#include <set>

#include "core/random.h"
#include "tests/parallel/ranks.h"

namespace af {
namespace {
using namespace testing;

struct Packed {
  std::int64_t sequences, length;
  int ranks;
  std::vector<AttentionSegment> documents;
  i64 rows() const { return sequences * length; }
};
std::string text(const Packed& p) {
  std::string s = fmt::format("{} sequences of {} on {} ranks:", p.sequences, p.length, p.ranks);
  for (const AttentionSegment& d : p.documents) s += fmt::format(" {}-{}", d.q_begin, d.q_end);
  return s;
}

// Documents of any length up to `longest`; holes (padding that is in no document) where draws say so.
Packed random_packed(std::uint64_t seed, int ranks, bool holes) {
  std::uint64_t draw = 0;
  auto under = [&](i64 n) { return i64(random_below(seed, 31, draw++, std::uint64_t(n))); };
  Packed p{1 + under(3), 2 * ranks * (1 + under(5)), ranks, {}};
  const i64 longest = under(3) == 0 ? p.length : 1 + under(p.length);
  for (i64 s = 0; s < p.sequences; ++s)
    for (i64 begin = s * p.length; begin < (s + 1) * p.length;) {
      const i64 end = std::min(begin + 1 + under(longest), (s + 1) * p.length);
      if (!holes || under(4)) p.documents.push_back({begin, end, begin, end});
      begin = end;
    }
  return p;
}

// Row i of a rank's part is row rows_of_rank()[i] of the whole. Chunks r and 2 CP - 1 - r of each sequence, written another way:
// walk through the chunks and deal them out there and back.
std::vector<i64> rows_of_rank(const Packed& p, int rank) {
  std::vector<i64> rows;
  const i64 chunk = p.ranks == 1 ? p.length : p.length / (2 * p.ranks);
  for (i64 i = 0; i < p.rows(); ++i) {
    const i64 number = i % p.length / chunk;
    if ((number < p.ranks ? number : 2 * p.ranks - 1 - number) == rank) rows.push_back(i);
  }
  return rows;
}
i64 document_of(const Packed& p, i64 row) {
  for (std::size_t d = 0; d < p.documents.size(); ++d)
    if (p.documents[d].q_begin <= row && row < p.documents[d].q_end) return i64(d);
  return -1;
}
// The keys that a rank needs: all that one of its queries sees, and its own.
std::set<i64> keys_of_rank(const Packed& p, int rank) {
  std::set<i64> keys;
  for (const i64 row : rows_of_rank(p, rank)) {
    keys.insert(row);
    const i64 d = document_of(p, row);
    if (d >= 0)
      for (i64 key = p.documents[std::size_t(d)].q_begin; key <= row; ++key) keys.insert(key);
  }
  return keys;
}

ContextPlan plan_of(const Packed& p, int rank) {
  ContextPlan plan;
  plan.make(p.documents, p.sequences, p.length, p.ranks, rank);
  return plan;
}

std::vector<Packed> cases(int most) {
  std::vector<Packed> all;
  for (int ranks = 1; ranks <= most; ++ranks)
    for (std::uint64_t seed = 0; seed < 12; ++seed) all.push_back(random_packed(seed * 10 + std::uint64_t(ranks), ranks, seed % 3 == 2));
  return all;
}

TEST(ContextPlan, ChunksAreDealtThereAndBack) {
  for (const Packed& p : cases(8)) {
    std::set<i64> all;
    for (int r = 0; r < p.ranks; ++r) {
      std::vector<i64> rows;
      for (i64 s = 0; s < p.sequences; ++s)
        for (const Range chunk : context_chunks(p.length, p.ranks, r))
          for (i64 i = chunk.begin; i < chunk.end; ++i) rows.push_back(s * p.length + i);
      EXPECT_EQ(rows, rows_of_rank(p, r));
      EXPECT_EQ(i64(rows.size()), p.rows() / p.ranks);
      all.insert(rows.begin(), rows.end());
    }
    EXPECT_EQ(i64(all.size()), p.rows());
  }
}

// Causal attention of one long document costs every rank the same.
TEST(ContextPlan, RanksShareTheWorkEvenly) {
  for (const int ranks : {2, 4, 8}) {
    Packed p{1, 16 * ranks, ranks, {{0, 16 * ranks, 0, 16 * ranks}}};
    std::set<i64> work;
    for (int r = 0; r < ranks; ++r) {
      i64 pairs = 0;
      for (const AttentionSegment& s : plan_of(p, r).segments)
        for (i64 q = s.q_begin; q < s.q_end; ++q) pairs += s.k_end - s.k_begin - (s.q_end - 1 - q);
      work.insert(pairs);
    }
    EXPECT_EQ(work.size(), 1u);
  }
}

// What moves is what the queries of another rank see, exactly; nothing where no document crosses a cut.
TEST(ContextPlan, NothingMovesThatIsNotNeeded) {
  int still = 0, moving = 0;
  for (const Packed& p : cases(8)) {
    SCOPED_TRACE(text(p));
    i64 needed_from_others = 0;
    std::vector<std::set<i64>> keys;
    for (int r = 0; r < p.ranks; ++r) {
      keys.push_back(keys_of_rank(p, r));
      needed_from_others += i64(keys.back().size()) - p.rows() / p.ranks;
    }
    (needed_from_others ? moving : still)++;
    for (int r = 0; r < p.ranks; ++r) {
      const ContextPlan plan = plan_of(p, r);
      EXPECT_EQ(plan.key_rows, i64(keys[std::size_t(r)].size()));
      EXPECT_EQ(plan.moves, needed_from_others > 0);
      const std::vector<i64> own = rows_of_rank(p, r);
      std::size_t at = 0;
      for (int other = 0; other < p.ranks; ++other) {
        std::vector<i64> sent, expected, needed;
        for (i64 i = 0; i < plan.send_rows[std::size_t(other)]; ++i) sent.push_back(own[std::size_t(plan.send[at++])]);
        for (const i64 row : own)
          if (keys[std::size_t(other)].count(row)) expected.push_back(row);
        EXPECT_EQ(sent, expected) << "from " << r << " to " << other;
        for (const i64 row : rows_of_rank(p, other))
          if (keys[std::size_t(r)].count(row)) needed.push_back(row);
        EXPECT_EQ(plan.receive_rows[std::size_t(other)], i64(needed.size())) << "from " << other << " to " << r;
      }
      EXPECT_EQ(at, plan.send.size());
    }
  }
  EXPECT_GT(still, 5);
  EXPECT_GT(moving, 30);
}

TEST(ContextPlan, NothingMovesWhereNoDocumentCrossesACut) {
  for (const int ranks : {2, 4, 8}) {
    Packed p{2, 8 * ranks, ranks, {}};
    for (i64 begin = 0; begin < p.rows(); begin += 4) p.documents.push_back({begin, begin + 4, begin, begin + 4});  // a chunk each
    on_ranks(ranks, [&](const Comm& world) {
      const Comm cp = world.split(Axis::cp, 0, world.rank());
      OnCpu cpu;
      const ContextPlan plan = plan_of(p, cp.rank());
      const Operand x = random_operand({p.rows() / ranks, 3}, DType::f64, 1);
      const Tensor keys = KeyExchange(cpu, cp, plan, x).wait();
      AF_CHECK(Numbers(keys.as<double>(), keys.as<double>() + keys.numel()) == x.values(), "own keys");
      KeyGradientExchange(cpu, cp, plan, keys).wait(x);
      AF_CHECK(world.bytes()[Axis::cp] == 0, "{} bytes", world.bytes()[Axis::cp]);
    });
  }
}

// The key buffer holds the rows that the plan promises, in the order of the tokens; its transpose is the gradients' way home; and the
// bytes are those of the rows that others need.
TEST(ContextPlan, ExchangesAreAdjoint) {
  const i64 h = 3;
  for (const Packed& p : cases(8)) {
    SCOPED_TRACE(text(p));
    const Numbers x = normal(p.rows() * h, 1);
    Results results;
    on_ranks(p.ranks, [&](const Comm& world) {
      const Comm cp = world.split(Axis::cp, 0, world.rank());
      OnCpu cpu;
      const ContextPlan plan = plan_of(p, cp.rank());
      Numbers own, expected;
      for (const i64 row : rows_of_rank(p, cp.rank()))
        for (i64 j = 0; j < h; ++j) own.push_back(x[std::size_t(row * h + j)]);
      for (const i64 row : keys_of_rank(p, cp.rank()))
        for (i64 j = 0; j < h; ++j) expected.push_back(x[std::size_t(row * h + j)]);
      const Operand local({i64(own.size()) / h, h}, DType::f64, own), dx = random_operand(local.tensor().shape, DType::f64, 8);
      const std::int64_t before = world.bytes()[Axis::cp];
      const Tensor keys = KeyExchange(cpu, cp, plan, local).wait();
      const Numbers came(keys.as<double>(), keys.as<double>() + keys.numel());
      AF_CHECK(came == expected, "the key buffer holds other rows");
      std::int64_t leaving = 0;
      for (int r = 0; r < p.ranks; ++r)
        if (r != cp.rank()) leaving += plan.send_rows[std::size_t(r)];
      AF_CHECK(world.bytes()[Axis::cp] - before == leaving * h * 8, "{} bytes for {} rows", world.bytes()[Axis::cp] - before, leaving);
      const Operand d_keys = random_operand(keys.shape, DType::f64, unsigned(50 + cp.rank()));
      KeyGradientExchange(cpu, cp, plan, d_keys).wait(dx);
      results.put("keys.d", cp.rank(), {dot(came, d_keys.values())});
      results.put("x.dx", cp.rank(), {dot(own, dx.values())});
    });
    double a = 0, b = 0;
    for (int r = 0; r < p.ranks; ++r) a += results.of("keys.d", r)[0], b += results.of("x.dx", r)[0];
    EXPECT_NEAR(a, b, 1e-12 * (1 + std::abs(a)));
  }
}

// Rows of the whole that a rank holds, put back.
void scatter(Numbers& whole, const std::vector<i64>& rows, const Numbers& part) {
  const std::size_t cols = part.size() / rows.size();
  whole.resize(std::max(whole.size(), std::size_t(rows.back() + 1) * cols));
  for (std::size_t i = 0; i < rows.size(); ++i)
    std::copy(part.begin() + std::ptrdiff_t(i * cols), part.begin() + std::ptrdiff_t((i + 1) * cols), whole.begin() + rows[i] * std::ptrdiff_t(cols));
}

// Forward and backward, grouped queries, tokens in no document included.
TEST(ContextPlan, AttentionEqualsThatOfOneRank) {
  const i64 heads = 4, key_heads = 2, d = 4;
  const double scale = 0.5;
  for (const int ranks : {1, 2, 3, 4, 8})
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
      const Packed p = random_packed(seed * 100 + std::uint64_t(ranks), ranks, seed % 2);
      SCOPED_TRACE(text(p));
      const Numbers q = normal(p.rows() * heads * d, 1), k = normal(p.rows() * key_heads * d, 2), v = normal(p.rows() * key_heads * d, 3),
                    d_o = normal(p.rows() * heads * d, 4);
      // One rank.
      const Shape q_shape{p.rows(), heads, d}, k_shape{p.rows(), key_heads, d};
      const Operand whole_q(q_shape, DType::f64, q), whole_k(k_shape, DType::f64, k), whole_v(k_shape, DType::f64, v), whole_d(q_shape, DType::f64, d_o);
      const Operand o(q_shape, DType::f64), lse({p.rows(), heads}, DType::f64), dq(q_shape, DType::f64), dk(k_shape, DType::f64), dv(k_shape, DType::f64);
      const OnCpu alone;
      attention_forward(alone, whole_q, whole_k, whole_v, p.documents, scale, o, lse);
      attention_backward(alone, whole_d, whole_q, whole_k, whole_v, o, lse, p.documents, scale, dq, dk, dv);
      Results results;
      on_ranks(ranks, [&](const Comm& cp) {
        OnCpu cpu;
        const ContextPlan plan = plan_of(p, cp.rank());
        const std::vector<i64> rows = rows_of_rank(p, cp.rank());
        const i64 n = i64(rows.size());
        auto own = [&](const Numbers& all) {
          const i64 cols = i64(all.size()) / p.rows();
          Numbers part;
          for (const i64 row : rows) part.insert(part.end(), all.begin() + row * cols, all.begin() + (row + 1) * cols);
          return part;
        };
        const Operand lq({n, heads, d}, DType::f64, own(q)), lk({n, key_heads, d}, DType::f64, own(k)), lv({n, key_heads, d}, DType::f64, own(v));
        const Operand ld({n, heads, d}, DType::f64, own(d_o)), lo({n, heads, d}, DType::f64), ll({n, heads}, DType::f64);
        const Operand ldq({n, heads, d}, DType::f64), ldk({n, key_heads, d}, DType::f64), ldv({n, key_heads, d}, DType::f64, 5);  // strided, as in qkv
        KeyExchange keys(cpu, cp, plan, lk), values(cpu, cp, plan, lv);
        const Tensor all_k = keys.wait(), all_v = values.wait();
        attention_forward(cpu, lq, all_k, all_v, plan.segments, scale, lo, ll);
        const Operand d_keys(all_k.shape, DType::f64), d_values(all_v.shape, DType::f64);
        attention_backward(cpu, ld, lq, all_k, all_v, lo, ll, plan.segments, scale, ldq, d_keys, d_values);
        KeyGradientExchange home_k(cpu, cp, plan, d_keys), home_v(cpu, cp, plan, d_values);
        home_k.wait(ldk);
        home_v.wait(ldv);
        AF_CHECK(ldv.canaries_alive(), "written between rows");
        results.put("o", cp.rank(), lo);
        results.put("lse", cp.rank(), ll);
        results.put("dq", cp.rank(), ldq);
        results.put("dk", cp.rank(), ldk);
        results.put("dv", cp.rank(), ldv);
      });
      auto joined = [&](const char* name) {
        Numbers whole;
        for (int r = 0; r < ranks; ++r) scatter(whole, rows_of_rank(p, r), results.of(name, r));
        return whole;
      };
      expect_near(joined("o"), o.values(), 1e-12);
      expect_near(joined("dq"), dq.values(), 1e-12);
      expect_near(joined("dk"), dk.values(), 1e-12);
      expect_near(joined("dv"), dv.values(), 1e-12);
      const Numbers a = joined("lse"), b = lse.values();
      for (std::size_t i = 0; i < a.size(); ++i) ASSERT_TRUE(a[i] == b[i] || std::abs(a[i] - b[i]) < 1e-12) << i;  // -inf in no document
      if (HasFailure()) FAIL();
    }
}

}  // namespace
}  // namespace af
