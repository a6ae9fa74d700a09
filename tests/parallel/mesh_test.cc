// Where ranks stand, against an enumeration that counts instead of dividing (Megatron-LM's rule: the order "tp-cp-dp-pp" of the dense
// grid and "etp-ep-edp-pp" of the expert grid, the first fastest; a group is the ranks that agree in all coordinates but its own).
#include "parallel/mesh.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <map>

#include <fmt/format.h>

#include "core/random.h"
#include "parallel/comm_threads.h"

namespace af {
namespace {

using Coordinates = std::map<std::string, int>;
using Order = std::vector<std::pair<std::string, int>>;  // names and sizes, the fastest first
using Groups = std::vector<std::vector<int>>;

// The coordinates of rank 0, 1, ...: an odometer.
std::vector<Coordinates> enumerate(const Order& order) {
  std::vector<Coordinates> all;
  Coordinates at;
  for (const auto& [name, size] : order) at[name] = 0;
  for (;;) {
    all.push_back(at);
    std::size_t i = 0;
    while (i < order.size() && ++at[order[i].first] == order[i].second) at[order[i++].first] = 0;
    if (i == order.size()) return all;
  }
}

// For each rank its group: the ranks that differ from it in the named coordinates alone, ascending.
Groups groups_of(const std::vector<Coordinates>& all, const std::vector<std::string>& free) {
  std::map<Coordinates, std::vector<int>> found;
  auto key = [&](Coordinates c) {
    for (const std::string& name : free) c.erase(name);
    return c;
  };
  for (std::size_t r = 0; r < all.size(); ++r) found[key(all[r])].push_back(int(r));
  Groups groups;
  for (const Coordinates& c : all) groups.push_back(found[key(c)]);
  return groups;
}

Order dense_order(const MeshShape& s) { return {{"tp", s.tp}, {"cp", s.cp}, {"dp", s.dp}, {"pp", s.pp}}; }
Order expert_order(const MeshShape& s) { return {{"etp", s.etp}, {"ep", s.ep}, {"edp", s.edp()}, {"pp", s.pp}}; }

// One of the divisors of n.
int divisor(std::uint64_t seed, std::uint64_t draw, int n) {
  std::vector<int> all;
  for (int d = 1; d <= n; ++d)
    if (n % d == 0) all.push_back(d);
  return all[random_below(seed, 3, draw, all.size())];
}

MeshShape random_shape(std::uint64_t seed, int world) {
  MeshShape s;
  s.pp = divisor(seed, 0, world);
  int stage = world / s.pp;
  s.tp = divisor(seed, 1, stage);
  s.cp = divisor(seed, 2, stage / s.tp);
  s.dp = stage / s.tp / s.cp;
  s.etp = divisor(seed, 3, stage);
  s.ep = divisor(seed, 4, stage / s.etp);
  return s;
}

std::string text(const MeshShape& s) { return fmt::format("tp {} cp {} dp {} pp {} etp {} ep {}", s.tp, s.cp, s.dp, s.pp, s.etp, s.ep); }

void expect_positions(const MeshShape& s) {
  SCOPED_TRACE(text(s));
  ASSERT_TRUE(problems(s, s.world()).empty());
  std::vector<Coordinates> dense = enumerate(dense_order(s)), expert = enumerate(expert_order(s));
  ASSERT_EQ(int(dense.size()), s.world());
  ASSERT_EQ(int(expert.size()), s.world());
  for (int r = 0; r < s.world(); ++r) {
    Coordinates &d = dense[std::size_t(r)], &e = expert[std::size_t(r)];
    MeshPosition expected{d["tp"], d["cp"], d["dp"], d["pp"], e["etp"], e["ep"], e["edp"]};
    ASSERT_EQ(position_of(s, r), expected) << "rank " << r;
    ASSERT_EQ(d["pp"], e["pp"]) << "a rank is of one pipeline stage";
    ASSERT_EQ(dense_rank(s, d["tp"], d["cp"], d["dp"], d["pp"]), r);
    ASSERT_EQ(expert_rank(s, e["etp"], e["ep"], e["edp"], e["pp"]), r);
  }
}

TEST(Mesh, PositionsAreThoseOfTheEnumeration) {
  expect_positions({});
  expect_positions({4, 2, 168, 8, 1, 64});                                                         // 1,344 nodes of 8
  expect_positions({8, 1, 168, 8, 8, 8});
  expect_positions({2, 3, 7, 5, 1, 6});
  const int worlds[] = {1, 2, 6, 8, 12, 16, 30, 64, 96, 105, 512, 1000, 1536};
  for (std::uint64_t seed = 0; seed < 60; ++seed) expect_positions(random_shape(seed, worlds[seed % std::size(worlds)]));
  for (std::uint64_t seed = 100; seed < 103; ++seed) expect_positions(random_shape(seed, 1344 * 8));
}

// Megatron-LM's own documented example: 16 ranks, tp 2, pp 4 (arguments of parallel_state.initialize_model_parallel).
TEST(Mesh, MegatronsExample) {
  MeshShape s{2, 1, 2, 4};
  std::vector<Coordinates> all = enumerate(dense_order(s));
  auto group = [&](int rank, const char* name) { return groups_of(all, {name})[std::size_t(rank)]; };
  EXPECT_EQ(group(0, "dp"), (std::vector<int>{0, 2}));
  EXPECT_EQ(group(13, "dp"), (std::vector<int>{13, 15}));
  EXPECT_EQ(group(5, "tp"), (std::vector<int>{4, 5}));
  EXPECT_EQ(group(6, "pp"), (std::vector<int>{2, 6, 10, 14}));
  EXPECT_EQ(position_of(s, 13), (MeshPosition{1, 0, 0, 3, 0, 0, 1}));
}

// Every group of every rank: its ranks, in their order.
void expect_groups(const MeshShape& s) {
  SCOPED_TRACE(text(s));
  std::vector<Coordinates> dense = enumerate(dense_order(s)), expert = enumerate(expert_order(s));
  Groups ends = groups_of(dense, {"pp"});
  for (auto& g : ends) g = {g.front(), g.back()};
  struct Expected {
    const char* name;
    Comm Mesh::*comm;
    Axis axis;
    Groups groups;
  };
  const std::vector<Expected> all = {{"tp", &Mesh::tp, Axis::tp, groups_of(dense, {"tp"})},
                                     {"cp", &Mesh::cp, Axis::cp, groups_of(dense, {"cp"})},
                                     {"dp", &Mesh::dp, Axis::dp, groups_of(dense, {"dp"})},
                                     {"pp", &Mesh::pp, Axis::pp, groups_of(dense, {"pp"})},
                                     {"dp_cp", &Mesh::dp_cp, Axis::dp, groups_of(dense, {"dp", "cp"})},
                                     {"tp_cp", &Mesh::tp_cp, Axis::tp, groups_of(dense, {"tp", "cp"})},
                                     {"etp", &Mesh::etp, Axis::etp, groups_of(expert, {"etp"})},
                                     {"ep", &Mesh::ep, Axis::ep, groups_of(expert, {"ep"})},
                                     {"edp", &Mesh::edp, Axis::edp, groups_of(expert, {"edp"})}};
  auto check = [&](const Comm& world) {
    const int me = world.rank();
    Mesh mesh(s, world);
    auto expect = [&](const char* name, const Comm& comm, Axis axis, const std::vector<int>& ranks) {
      AF_CHECK(comm.size() == int(ranks.size()), "{}: {} of {} ranks", name, comm.size(), ranks.size());
      if (comm.size() == 1) return;
      AF_CHECK(comm.axis() == axis, "{} counts as {}", name, name_of(comm.axis()));
      for (int i = 0; i < comm.size(); ++i)
        AF_CHECK(comm.world_rank(i) == ranks[std::size_t(i)], "{}: rank {} is {}, not {}", name, i, comm.world_rank(i), ranks[std::size_t(i)]);
      AF_CHECK(ranks[std::size_t(comm.rank())] == me, "{}: {} is {}", name, me, comm.rank());
      double sum = me, expected = 0;  // and they are connected
      for (int r : ranks) expected += r;
      comm.all_reduce(Tensor(&sum, DType::f64, {1})).wait();
      AF_CHECK(sum == expected, "{}: {}, not {}", name, sum, expected);
    };
    for (const Expected& e : all) expect(e.name, mesh.*e.comm, e.axis, e.groups[std::size_t(me)]);
    const bool end = mesh.first_stage() || mesh.last_stage();
    expect("tied", mesh.tied, Axis::pp, end && s.pp > 1 ? ends[std::size_t(me)] : std::vector<int>{me});
    AF_CHECK(mesh.first_stage() == (dense[std::size_t(me)]["pp"] == 0) && mesh.last_stage() == (dense[std::size_t(me)]["pp"] == s.pp - 1), "stages");
    // The ranks documented beside the members.
    if (mesh.dp_cp.size() > 1) AF_CHECK(mesh.dp_cp.rank() == mesh.position.cp + s.cp * mesh.position.dp, "dp_cp");
    if (mesh.tp_cp.size() > 1) AF_CHECK(mesh.tp_cp.rank() == mesh.position.tp + s.tp * mesh.position.cp, "tp_cp");
  };
  if (s.world() == 1) check(Comm());
  else EXPECT_NO_THROW(run_ranks(s.world(), {}, check));
}

TEST(Mesh, GroupsAreThoseOfTheEnumeration) {
  expect_groups({});
  expect_groups({2, 2, 2, 2, 1, 8});
  expect_groups({1, 2, 2, 3, 2, 2});
  expect_groups({4, 1, 2, 2, 2, 4});
  for (std::uint64_t seed = 0; seed < 25; ++seed) expect_groups(random_shape(seed, 1 + int(random_below(seed, 4, 0, 16))));
}

TEST(Mesh, OtherSizesThanTheProcessesAreRefused) {
  EXPECT_THROW(run_ranks(4, {}, [](const Comm& world) { Mesh({2, 1, 1, 1}, world); }), InternalError);
}

// ---------------------------------------------------------------------------- impossible meshes
bool possible(MeshShape s, int world) {  // by counting
  if (std::min({s.tp, s.cp, s.pp, s.etp, s.ep}) < 1) return false;
  for (int dp = 1; s.tp * s.cp * s.pp * dp <= world; ++dp)
    for (int edp = 1; s.tp * s.cp * s.pp * dp == world && s.etp * s.ep * edp <= world / s.pp; ++edp)
      if (s.etp * s.ep * edp == s.tp * s.cp * dp) return true;
  return false;
}

std::vector<int> numbers_in(const std::string& text) {
  std::vector<int> numbers;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (std::isdigit(text[i])) {
      std::size_t used = 0;
      numbers.push_back(std::stoi(text.substr(i), &used));
      i += used;
    }
  return numbers;
}

// Every mesh that the message names as possible is, and is the nearest of its kind.
void expect_true_neighbours(const MeshShape& s, int world, const std::string& message) {
  SCOPED_TRACE(message);
  std::size_t begin = message.find("possible: ");
  ASSERT_NE(begin, std::string::npos);
  const std::pair<const char*, int MeshShape::*> sizes[] = {{"expert_tensor_parallel_size", &MeshShape::etp},
                                                            {"expert_model_parallel_size", &MeshShape::ep},
                                                            {"tensor_model_parallel_size", &MeshShape::tp},
                                                            {"context_parallel_size", &MeshShape::cp},
                                                            {"pipeline_model_parallel_size", &MeshShape::pp}};
  std::string rest = message.substr(begin + 10);
  bool processes = false;
  for (std::size_t end; !rest.empty(); rest = end == std::string::npos ? "" : rest.substr(end + 5)) {
    end = rest.find(", or ");
    std::string part = rest.substr(0, end);
    std::vector<int> numbers = numbers_in(part);
    ASSERT_TRUE(numbers.size() == 1 || numbers.size() == 2) << part;
    if (part.ends_with(" processes")) {
      processes = true;
      for (int n : numbers) EXPECT_TRUE(possible(s, n)) << n << " processes";
      for (int n = std::min(numbers.front(), world) + 1; n < numbers.back(); ++n) EXPECT_FALSE(possible(s, n)) << n << " processes are nearer";
      continue;
    }
    auto size = std::find_if(std::begin(sizes), std::end(sizes), [&](const auto& x) { return part.starts_with(x.first); });
    ASSERT_NE(size, std::end(sizes)) << part;
    const int wanted = s.*size->second;
    for (int n = 1; n <= world; ++n) {
      MeshShape other = s;
      other.*size->second = n;
      const bool named = std::find(numbers.begin(), numbers.end(), n) != numbers.end();
      const bool fits = possible(other, world);
      const bool nearer = n < wanted ? n > numbers.front() || numbers.front() > wanted : n < numbers.back() || numbers.back() < wanted;
      EXPECT_FALSE(named && !fits) << part << ": " << n;
      EXPECT_FALSE(!named && nearer && fits) << part << ": " << n << " is nearer";
    }
  }
  EXPECT_TRUE(processes) << "some number of processes always fits";
}

TEST(Mesh, ImpossibleOnesAreRefusedWithTheArithmetic) {
  EXPECT_EQ(problems({2, 1, 1, 3}, 8),
            std::vector<std::string>{"tensor_model_parallel_size 2 x context_parallel_size 1 x pipeline_model_parallel_size 3 = 6 does not divide the 8 processes; "
                                     "possible: pipeline_model_parallel_size 2 or 4, or 6 or 12 processes"});
  EXPECT_EQ(problems({2, 1, 1, 1, 3, 8}, 16),
            std::vector<std::string>{"expert_tensor_parallel_size 3 x expert_model_parallel_size 8 = 24 does not divide the 16 processes of a pipeline stage "
                                     "(16 processes / pipeline_model_parallel_size 1); possible: expert_tensor_parallel_size 2, or 24 processes"});
  EXPECT_EQ(problems({0, 1, 1, 1}, 8), std::vector<std::string>{"tensor_model_parallel_size 0: at least 1"});
  EXPECT_EQ(problems({1, 1, 1, 1, 1, -2}, 8), std::vector<std::string>{"expert_model_parallel_size -2: at least 1"});
}

TEST(Mesh, OnePossibleNeighbourAtLeastIsNamed) {
  int refused = 0;
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    std::uint64_t draw = 0;
    auto below = [&](int n) { return 1 + int(random_below(seed, 9, draw++, std::uint64_t(n))); };
    const int world = below(48);
    MeshShape s{below(6), below(4), 1, below(6), below(4), below(9)};
    std::vector<std::string> found = problems(s, world);
    ASSERT_EQ(found.empty(), possible(s, world)) << text(s) << " on " << world;
    if (found.empty()) continue;
    ++refused;
    ASSERT_EQ(found.size(), 1u);
    const bool dense = found[0].starts_with("tensor");
    EXPECT_EQ(numbers_in(found[0])[dense ? 3 : 2], dense ? s.tp * s.cp * s.pp : s.etp * s.ep);
    ASSERT_NO_FATAL_FAILURE(expect_true_neighbours(s, world, found[0]));
    if (HasFailure()) FAIL() << text(s) << " on " << world;
  }
  EXPECT_GT(refused, 2000);
}

TEST(Mesh, HugeSizesAreRefusedToo) {  // no product overflows
  const int huge = 2'000'000'000;
  for (const MeshShape& s : {MeshShape{huge, huge, 1, huge}, MeshShape{1, 1, 1, 1, huge, huge}, MeshShape{1, huge, 1, 1, huge, huge}})
    EXPECT_EQ(problems(s, 10752).size(), 1u) << text(s);
}

}  // namespace
}  // namespace af
