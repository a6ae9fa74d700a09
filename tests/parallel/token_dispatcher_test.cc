// Tokens to their experts and back on 1 to 8 ranks against loops. All numbers are small integers: every sum is exact in every type.
#include "parallel/token_dispatcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

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
  i64 most = 0;  // rows of a rank in one round; 0: any number
  int world() const { return shape.world(); }
  i64 local() const { return experts / shape.ep; }
};

Case make_case(int etp, int ep, int edp, i64 experts, Routing routing, DType dtype, i64 most = 0) {
  MeshShape s;
  s.etp = etp, s.ep = ep, s.dp = etp * ep * edp;
  return {s, experts, routing, dtype, most};
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

std::string text(const Case& c) {
  return fmt::format("etp {} ep {} edp {}, {} experts, {}, {}, at most {} rows", c.shape.etp, c.shape.ep, c.shape.edp(), c.experts, kNames[int(c.routing)],
                     name_of(c.dtype), c.most);
}
i64 expert_of(const Case& c, int rank, i64 row) {
  const std::vector<i64> counts = counts_of(c, rank);
  i64 e = 0;
  while (row >= counts[std::size_t(e)]) row -= counts[std::size_t(e++)];
  return e;
}
i64 all_rows(const std::vector<i64>& counts) { return std::accumulate(counts.begin(), counts.end(), i64(0)); }
// The ranks whose rows come to a rank's experts, in the order in which they stand there.
std::vector<int> sources_of(const Case& c, const MeshPosition& at) {
  std::vector<int> ranks;
  for (int t = 0; t < c.shape.etp; ++t)
    for (int e = 0; e < c.shape.ep; ++e) ranks.push_back(expert_rank(c.shape, t, e, at.edp, 0));
  return ranks;
}
// Rows for a rank's experts.
i64 rows_for(const Case& c, const MeshPosition& at) {
  i64 n = 0;
  for (const int source : sources_of(c, at)) {
    const std::vector<i64> counts = counts_of(c, source);
    for (i64 e = at.ep * c.local(); e < (at.ep + 1) * c.local(); ++e) n += counts[std::size_t(e)];
  }
  return n;
}
// An expert's answer to a row of `rank`: on every rank of etp a part of the sum.
double answer(int expert_rank, int rank, i64 row, i64 col) { return value_of(100 + expert_rank, rank * 1000 + row, col); }

struct Round {
  Range sent;
  std::vector<i64> offsets;
  Numbers arrived, home;
};
struct Record {  // what a rank did
  std::vector<i64> source, position;
  std::vector<Round> rounds;
  i64 dispatched_ep = 0, dispatched_etp = 0, combined_ep = 0, combined_etp = 0;  // bytes
};

// The rows that are on a rank in a round: expert by expert; of one expert, rank by rank, each in the order in which it sends them.
std::vector<std::pair<int, i64>> arrivals(const Case& c, const std::vector<Record>& records, const MeshPosition& at, std::size_t round,
                                          std::vector<i64>* offsets = nullptr) {
  std::vector<std::pair<int, i64>> rows;
  if (offsets) *offsets = {0};
  for (i64 e = at.ep * c.local(); e < (at.ep + 1) * c.local(); ++e) {
    for (const int rank : sources_of(c, at)) {
      const Record& r = records[std::size_t(rank)];
      for (i64 i = r.rounds[round].sent.begin; i < r.rounds[round].sent.end; ++i)
        if (expert_of(c, rank, r.source[std::size_t(i)]) == e) rows.push_back({rank, r.source[std::size_t(i)]});
    }
    if (offsets) offsets->push_back(i64(rows.size()));
  }
  return rows;
}

void run_rank(const Case& c, i64 h, const Comm& world, std::vector<Record>& records) {
  const Mesh mesh(c.shape, world);
  const int me = world.rank();
  Record& record = records[std::size_t(me)];
  OnCpu cpu;
  Arena memory(Device{}, "plan");
  const TokenDispatcher dispatcher(mesh, c.experts);
  AF_CHECK(dispatcher.alone() == (c.shape.ep == 1 && c.shape.etp == 1), "alone");
  std::vector<i64> offsets = {0};
  for (const i64 n : counts_of(c, me)) offsets.push_back(offsets.back() + n);
  const i64 rows = offsets.back();
  const TokenDispatcher::Plan plan = dispatcher.plan(cpu, memory, offsets, c.most);

  Numbers in_order(static_cast<std::size_t>(rows + 2));
  std::iota(in_order.begin(), in_order.end(), 0);
  const Operand source({rows + 2}, DType::i32, in_order), position({rows + 2}, DType::i32, in_order);
  dispatcher.sort_by_round(cpu, plan, source, position);
  for (const double x : source.values()) record.source.push_back(i64(x));
  for (const double x : position.values()) record.position.push_back(i64(x));
  for (std::vector<i64>* order : {&record.source, &record.position}) {  // the two rows that are no expert's stay
    AF_CHECK((*order)[std::size_t(rows)] == rows && order->back() == rows + 1, "a row that is no expert's was moved");
    order->resize(std::size_t(rows));
  }

  record.rounds.resize(std::size_t(plan.rounds));
  std::vector<TokenDispatcher::Round> rounds;
  for (i64 i = 0; i < plan.rounds; ++i) {
    const std::size_t before = memory.used();
    rounds.push_back(dispatcher.round(cpu, memory, plan, i));
    AF_CHECK(memory.used() - before == dispatcher.round_bytes(rounds.back().rows), "{} bytes for {} rows, not {}", memory.used() - before, rounds.back().rows,
             dispatcher.round_bytes(rounds.back().rows));
    record.rounds[std::size_t(i)].sent = rounds.back().sent;
    for (i64 e = 0; e <= c.local(); ++e) record.rounds[std::size_t(i)].offsets.push_back(rounds.back().offsets.as<i64>()[e]);
  }
  world.barrier().wait();  // from here on all know what goes in which round
  for (std::size_t i = 0; i < rounds.size(); ++i) {
    Numbers own;
    for (i64 r = rounds[i].sent.begin; r < rounds[i].sent.end; ++r)
      for (i64 j = 0; j < h; ++j) own.push_back(value_of(me, record.source[std::size_t(r)], j));
    const i64 n = rounds[i].sent.size();
    const Operand x({n, h}, c.dtype, own), out({rounds[i].rows, h}, c.dtype), back({n, h}, c.dtype);
    const AxisBytes before = world.bytes();
    dispatcher.dispatch(cpu, rounds[i], x, out);
    const AxisBytes sent = world.bytes();
    record.rounds[i].arrived = out.values();
    Numbers y;
    for (const auto& [rank, row] : arrivals(c, records, mesh.position, i))
      for (i64 j = 0; j < h; ++j) y.push_back(answer(me, rank, row, j));
    AF_CHECK(i64(y.size()) == rounds[i].rows * h, "{} rows, not {}", rounds[i].rows, i64(y.size()) / h);
    const AxisBytes again = world.bytes();
    dispatcher.combine(cpu, rounds[i], Operand({rounds[i].rows, h}, c.dtype, y), back);
    const AxisBytes returned = world.bytes();
    record.rounds[i].home = back.values();
    AF_CHECK(x.values() == own && out.canaries_alive() && back.canaries_alive(), "written elsewhere");
    record.dispatched_ep += sent[Axis::ep] - before[Axis::ep], record.dispatched_etp += sent[Axis::etp] - before[Axis::etp];
    record.combined_ep += returned[Axis::ep] - again[Axis::ep], record.combined_etp += returned[Axis::etp] - again[Axis::etp];
  }
}

// Every row once, in its round, block by block; and no rank has more than its share in a round.
void expect_rounds(const Case& c, const std::vector<Record>& records, int rank) {
  const Record& r = records[std::size_t(rank)];
  const MeshPosition at = position_of(c.shape, rank);
  i64 largest = 0;
  for (int e = 0; e < c.shape.ep; ++e) largest = std::max(largest, rows_for(c, position_of(c.shape, expert_rank(c.shape, at.etp, e, at.edp, 0))));
  const i64 rounds = c.most ? std::max<i64>(1, (largest + c.most - 1) / c.most) : 1, mine = rows_for(c, at);
  ASSERT_EQ(i64(r.rounds.size()), rounds);
  std::vector<i64> sorted = r.source;
  std::sort(sorted.begin(), sorted.end());
  for (i64 i = 0; i < i64(sorted.size()); ++i) {
    ASSERT_EQ(sorted[std::size_t(i)], i);
    ASSERT_EQ(r.source[std::size_t(r.position[std::size_t(i)])], i);
  }
  i64 next = 0;
  std::vector<i64> gone(std::size_t(c.experts), 0), first(std::size_t(c.experts), 0);
  const std::vector<i64> counts = counts_of(c, rank);
  for (i64 e = 1; e < c.experts; ++e) first[std::size_t(e)] = first[std::size_t(e - 1)] + counts[std::size_t(e - 1)];
  for (std::size_t i = 0; i < r.rounds.size(); ++i) {
    ASSERT_EQ(r.rounds[i].sent.begin, next);
    next = r.rounds[i].sent.end;
    std::vector<i64> part(std::size_t(c.experts), 0);
    i64 last = -1;
    for (i64 p = r.rounds[i].sent.begin; p < next; ++p) {
      const i64 row = r.source[std::size_t(p)];
      const std::size_t e = std::size_t(expert_of(c, rank, row));
      EXPECT_GT(row, last) << "a round's rows are in the order of the experts";
      EXPECT_EQ(row, first[e] + gone[e]++) << "a block's rows keep their order";
      last = row;
      ++part[e];
    }
    for (std::size_t e = 0; e < part.size(); ++e) {
      EXPECT_GE(part[e], counts[e] / rounds);
      EXPECT_LE(part[e], (counts[e] + rounds - 1) / rounds);
    }
    EXPECT_LE(i64(r.rounds[i].offsets.back()), (mine + rounds - 1) / rounds);
    EXPECT_TRUE(!c.most || r.rounds[i].offsets.back() <= c.most);
  }
  EXPECT_EQ(next, all_rows(counts));
}

void check(const Case& c, i64 h) {
  SCOPED_TRACE(text(c));
  std::vector<Record> records(static_cast<std::size_t>(c.world()));
  ASSERT_NO_THROW(on_ranks(c.world(), [&](const Comm& world) { run_rank(c, h, world, records); }));
  double there = 0, home = 0;
  i64 all_bytes = 0, all_leaving = 0;
  const i64 row_bytes = h * i64(size_of(c.dtype));
  for (int rank = 0; rank < c.world(); ++rank) {
    const Record& r = records[std::size_t(rank)];
    const MeshPosition at = position_of(c.shape, rank);
    ASSERT_NO_FATAL_FAILURE(expect_rounds(c, records, rank));
    i64 here = 0;
    for (std::size_t i = 0; i < r.rounds.size(); ++i) {
      std::vector<i64> offsets;
      Numbers arrived, answers, own, back;
      for (const auto& [from, row] : arrivals(c, records, at, i, &offsets))
        for (i64 j = 0; j < h; ++j) arrived.push_back(value_of(from, row, j)), answers.push_back(answer(rank, from, row, j));
      for (i64 p = r.rounds[i].sent.begin; p < r.rounds[i].sent.end; ++p)
        for (i64 j = 0; j < h; ++j) {
          const i64 row = r.source[std::size_t(p)];
          own.push_back(value_of(rank, row, j));
          back.push_back(0);
          for (int t = 0; t < c.shape.etp; ++t)
            back.back() += answer(expert_rank(c.shape, t, int(expert_of(c, rank, row) / c.local()), at.edp, 0), rank, row, j);
        }
      EXPECT_EQ(r.rounds[i].offsets, offsets);
      EXPECT_EQ(r.rounds[i].arrived, arrived) << "other rows have come";
      EXPECT_EQ(r.rounds[i].home, back) << "other rows have come home";
      there += dot(r.rounds[i].arrived, answers);
      home += dot(own, r.rounds[i].home);
      here += offsets.back();
    }
    // Bytes: what leaves for another rank of ep, to be given to all of etp; and the same back.
    const std::vector<i64> counts = counts_of(c, rank);
    const i64 leaving = all_rows(counts) - std::accumulate(counts.begin() + at.ep * c.local(), counts.begin() + (at.ep + 1) * c.local(), i64(0));
    i64 received = 0, from_others = 0;
    for (int e = 0; e < c.shape.ep; ++e) {
      const std::vector<i64> theirs = counts_of(c, expert_rank(c.shape, at.etp, e, at.edp, 0));
      const i64 n = std::accumulate(theirs.begin() + at.ep * c.local(), theirs.begin() + (at.ep + 1) * c.local(), i64(0));
      received += n;
      from_others += e == at.ep ? 0 : n;
    }
    EXPECT_EQ(r.dispatched_ep, leaving * row_bytes);
    EXPECT_EQ(r.dispatched_etp, received * (c.shape.etp - 1) * row_bytes);
    EXPECT_EQ(r.combined_ep, from_others * row_bytes);
    EXPECT_EQ(r.combined_etp, (here - received) * row_bytes);
    all_bytes += r.dispatched_ep + r.combined_ep;
    all_leaving += leaving;
  }
  EXPECT_EQ(there, home) << "combine is not the transpose of dispatch";
  EXPECT_EQ(all_bytes, 2 * all_leaving * row_bytes);
}

TEST(TokenDispatcher, EqualsTheLoop) {
  struct Grid {
    int etp, ep, edp;
  };
  for (const Grid g : {Grid{1, 1, 1}, {1, 2, 1}, {2, 1, 1}, {1, 4, 1}, {2, 2, 1}, {4, 1, 1}, {1, 2, 2}, {2, 2, 2}, {1, 8, 1}, {4, 2, 1}, {2, 3, 1}, {8, 1, 1}})
    for (const Routing routing : kRoutings)
      for (const i64 most : {0, 1, 7, 40})
        if (most != 1 || g.etp * g.ep * g.edp <= 4) check(make_case(g.etp, g.ep, g.edp, g.ep == 3 ? 6 : 8, routing, DType::f64, most), 3);
}

TEST(TokenDispatcher, OtherTypesAndWidths) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const i64 h : {1, 40}) {
      check(make_case(2, 2, 1, 4, Routing::random, dtype), h);
      check(make_case(1, 4, 1, 4, Routing::one_expert, dtype), h);
    }
}

TEST(TokenDispatcher, BigMessages) { check(make_case(2, 2, 1, 4, Routing::random, DType::f64), 20000); }

TEST(TokenDispatcher, EveryRowToOneExpertOfTheLastRank) {
  const Case c = make_case(1, 4, 1, 8, Routing::one_expert, DType::f64);
  for (int r = 0; r < 4; ++r) EXPECT_EQ(rows_for(c, position_of(c.shape, r)), r < 3 ? 0 : 9 + 10 + 11 + 12);
  check(c, 3);
}

}  // namespace
}  // namespace af
