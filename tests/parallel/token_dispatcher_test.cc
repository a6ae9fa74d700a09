// Tokens to their experts and back on 1 to 8 ranks against loops. All numbers are small integers: every sum is exact in every type.
#include "parallel/token_dispatcher.h"

#include <gtest/gtest.h>

#include "core/random.h"
#include "tests/parallel/ranks.h"

namespace af {
namespace {
using namespace testing;

enum class Routing { random, one_expert, some_ranks_empty, one_rank_receives_nothing, nothing };
constexpr Routing kRoutings[] = {Routing::random, Routing::one_expert, Routing::some_ranks_empty, Routing::one_rank_receives_nothing, Routing::nothing};
constexpr const char* kNames[] = {"random", "one expert", "some ranks are empty", "one rank receives nothing", "nothing"};

struct Case {
  MeshShape shape;
  i64 experts;
  Routing routing;
  DType dtype;
  int world() const { return shape.world(); }
  i64 local() const { return experts / shape.ep; }
};

Case make_case(int etp, int ep, int edp, i64 experts, Routing routing, DType dtype) {
  MeshShape s;
  s.etp = etp, s.ep = ep, s.dp = etp * ep * edp;
  return {s, experts, routing, dtype};
}

// Rows of each expert on a rank.
std::vector<i64> counts_of(const Case& c, int rank) {
  std::vector<i64> n;
  for (i64 e = 0; e < c.experts; ++e) {
    i64 rows = i64(random_below(5, std::uint64_t(rank), std::uint64_t(e), 6));
    if (c.routing == Routing::one_expert) rows = e == c.experts - 1 ? 9 + rank : 0;
    if (c.routing == Routing::some_ranks_empty && rank % 2) rows = 0;
    if (c.routing == Routing::one_rank_receives_nothing && e < c.local()) rows = 0;
    if (c.routing == Routing::nothing) rows = 0;
    n.push_back(rows);
  }
  return n;
}
double value_of(int rank, i64 row, i64 col) { return double(random_below(6, std::uint64_t(rank), std::uint64_t(row * 1000 + col), 17)) - 8; }

// A row of a rank that has come to an expert.
struct Origin {
  int rank;
  i64 row;
};
// The rows that stand on a rank after dispatch: expert by expert; of one expert, from the ranks of etp and within these of ep, each in
// its own order.
std::vector<Origin> arrivals(const Case& c, const MeshPosition& at, std::vector<i64>* per_expert = nullptr) {
  std::vector<Origin> rows;
  for (i64 e = at.ep * c.local(); e < (at.ep + 1) * c.local(); ++e) {
    const std::size_t before = rows.size();
    for (int t = 0; t < c.shape.etp; ++t)
      for (int source = 0; source < c.shape.ep; ++source) {
        const int rank = expert_rank(c.shape, t, source, at.edp, 0);
        const std::vector<i64> counts = counts_of(c, rank);
        i64 first = 0;
        for (i64 other = 0; other < e; ++other) first += counts[std::size_t(other)];
        for (i64 i = 0; i < counts[std::size_t(e)]; ++i) rows.push_back({rank, first + i});
      }
    if (per_expert) per_expert->push_back(i64(rows.size() - before));
  }
  return rows;
}

std::string text(const Case& c) {
  return fmt::format("etp {} ep {} edp {}, {} experts, {}, {}", c.shape.etp, c.shape.ep, c.shape.edp(), c.experts, kNames[int(c.routing)], name_of(c.dtype));
}

void check(const Case& c, i64 h) {
  SCOPED_TRACE(text(c));
  Results results;
  on_ranks(c.world(), [&](const Comm& world) {
    const Mesh mesh(c.shape, world);
    const int me = world.rank();
    OnCpu cpu;
    Arena memory(Device{}, "plan");
    const TokenDispatcher dispatcher(mesh, c.experts);
    AF_CHECK(dispatcher.alone() == (c.shape.ep == 1 && c.shape.etp == 1), "alone");
    const std::vector<i64> counts = counts_of(c, me);
    std::vector<i64> offsets = {0}, expected_counts;
    for (const i64 n : counts) offsets.push_back(offsets.back() + n);
    const i64 rows = offsets.back();

    const std::vector<Origin> expected = arrivals(c, mesh.position, &expected_counts);
    const TokenDispatcher::Plan plan = dispatcher.plan(cpu, memory, offsets);
    AF_CHECK(plan.rows == i64(expected.size()), "{} rows, not {}", plan.rows, expected.size());
    i64 at = 0;
    for (i64 e = 0; e <= c.local(); ++e) {
      AF_CHECK(plan.offsets.as<i64>()[e] == at, "offset {} is {}, not {}", e, plan.offsets.as<i64>()[e], at);
      if (e < c.local()) at += expected_counts[std::size_t(e)];
    }

    Numbers own, arrived;
    for (i64 r = 0; r < rows; ++r)
      for (i64 j = 0; j < h; ++j) own.push_back(value_of(me, r, j));
    for (const Origin& o : expected)
      for (i64 j = 0; j < h; ++j) arrived.push_back(value_of(o.rank, o.row, j));
    const Operand x({rows, h}, c.dtype, own), out({plan.rows, h}, c.dtype), back({rows, h}, c.dtype);
    const AxisBytes before = world.bytes();
    dispatcher.dispatch(cpu, plan, x, out);
    const AxisBytes sent = world.bytes();
    AF_CHECK(out.values() == arrived, "other rows have come");
    AF_CHECK(x.values() == own && out.canaries_alive(), "dispatch wrote elsewhere");

    // The experts' answers: on every rank of etp a part of the sum.
    Numbers y;
    for (const Origin& o : expected)
      for (i64 j = 0; j < h; ++j) y.push_back(value_of(100 + me, o.rank * 1000 + o.row, j));
    Numbers home;
    for (i64 r = 0; r < rows; ++r)
      for (i64 j = 0; j < h; ++j) {
        i64 e = 0;
        while (offsets[std::size_t(e + 1)] <= r) ++e;
        double total = 0;
        for (int t = 0; t < c.shape.etp; ++t) {
          const int rank = expert_rank(c.shape, t, int(e / c.local()), mesh.position.edp, 0);
          total += value_of(100 + rank, me * 1000 + r, j);
        }
        home.push_back(total);
      }
    const Operand answers({plan.rows, h}, c.dtype, y);
    dispatcher.combine(cpu, plan, answers, back);
    const AxisBytes returned = world.bytes();
    AF_CHECK(back.values() == home, "other rows have come home");
    AF_CHECK(back.canaries_alive(), "combine wrote elsewhere");
    results.put("dispatched.y", me, {dot(out.values(), y)});
    results.put("x.combined", me, {dot(own, back.values())});

    // Bytes: what leaves for another rank of ep, to be given to all of etp.
    const i64 row_bytes = h * i64(size_of(c.dtype));
    i64 leaving = 0, received = 0, from_others = 0;
    for (i64 e = 0; e < c.experts; ++e)
      if (e / c.local() != mesh.position.ep) leaving += counts[std::size_t(e)];
    for (int source = 0; source < c.shape.ep; ++source) {
      const std::vector<i64> theirs = counts_of(c, expert_rank(c.shape, mesh.position.etp, source, mesh.position.edp, 0));
      for (i64 e = mesh.position.ep * c.local(); e < (mesh.position.ep + 1) * c.local(); ++e) {
        received += theirs[std::size_t(e)];
        if (source != mesh.position.ep) from_others += theirs[std::size_t(e)];
      }
    }
    auto expect = [&](const char* what, i64 bytes, i64 n) { AF_CHECK(bytes == n * row_bytes, "{}: {} bytes, not {}", what, bytes, n * row_bytes); };
    expect("dispatch over ep", sent[Axis::ep] - before[Axis::ep], leaving);
    expect("dispatch over etp", sent[Axis::etp] - before[Axis::etp], received * (c.shape.etp - 1));
    expect("combine over ep", returned[Axis::ep] - sent[Axis::ep], from_others);
    expect("combine over etp", returned[Axis::etp] - sent[Axis::etp], plan.rows - received);
    results.put("leaving", me, {double(leaving)});
    results.put("bytes", me, {double(returned[Axis::ep] - before[Axis::ep])});
  });
  double a = 0, b = 0, leaving = 0, bytes = 0;
  for (int r = 0; r < c.world(); ++r) {
    a += results.of("dispatched.y", r)[0], b += results.of("x.combined", r)[0];
    leaving += results.of("leaving", r)[0], bytes += results.of("bytes", r)[0];
  }
  EXPECT_EQ(a, b) << "combine is not the transpose of dispatch";
  EXPECT_EQ(bytes, 2 * leaving * double(h) * double(size_of(c.dtype)));
}

TEST(TokenDispatcher, EqualsTheLoop) {
  struct Grid {
    int etp, ep, edp;
  };
  for (const Grid g : {Grid{1, 1, 1}, {1, 2, 1}, {2, 1, 1}, {1, 4, 1}, {2, 2, 1}, {4, 1, 1}, {1, 2, 2}, {2, 2, 2}, {1, 8, 1}, {4, 2, 1}, {2, 3, 1}, {8, 1, 1}})
    for (const Routing routing : kRoutings) check(make_case(g.etp, g.ep, g.edp, g.ep == 3 ? 6 : 8, routing, DType::f64), 5);
}

TEST(TokenDispatcher, OtherTypesAndWidths) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const i64 h : {1, 40}) {
      check(make_case(2, 2, 1, 4, Routing::random, dtype), h);
      check(make_case(1, 4, 1, 4, Routing::one_expert, dtype), h);
    }
}

TEST(TokenDispatcher, BigMessages) { check(make_case(2, 2, 1, 4, Routing::random, DType::f64), 20000); }

// Nobody's rows for one expert are all rows of another: offsets of experts without a row coincide.
TEST(TokenDispatcher, EveryRowToOneExpertOfTheLastRank) {
  const Case c = make_case(1, 4, 1, 8, Routing::one_expert, DType::f64);
  for (int r = 0; r < 4; ++r) {
    const i64 expected = r < 3 ? 0 : 9 + 10 + 11 + 12;
    EXPECT_EQ(i64(arrivals(c, position_of(c.shape, r)).size()), expected);
  }
  check(c, 3);
}

}  // namespace
}  // namespace af
