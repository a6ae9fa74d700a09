#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <numeric>
#include <random>
#include <thread>

#include "parallel/comm_threads.h"
#include "tests/parallel/comm_cases.h"
#include "tests/parallel/thread_sanitizer.h"

namespace af {
namespace {

using test::number;
using test::numbers;
using test::tensor_of;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
void pause(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

// The message with which n ranks end; "" where they do not fail.
std::string failure(int n, const ThreadOptions& options, const std::function<void(const Comm&)>& f) {
  try {
    run_ranks(n, options, f);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(Comm, EveryOperationOnOneToNineRanks) {
  for (int n = 1; n <= 9; ++n) run_ranks(n, {}, [&](const Comm& world) { test::check_every_operation(world, n == 2 || n == 3 || n == 9); });
}

TEST(Comm, TreesOfBigGroups) {
  for (int n : {12, 16, 33})
    run_ranks(n, {}, [&](const Comm& world) {
      for (std::int64_t c : {0, 1, 100}) test::check_reductions<float>(world, c, 5), test::check_moves<bf16>(world, c, 6);
      if (n == 12) test::check_reductions<float>(world, 60000, 7);
    });
}

// The inputs of these tests would show another order, and so would a rank that sums another way.
TEST(Comm, OrderMatters) {
  int differing = 0;
  for (std::int64_t i = 0; i < 300; ++i) {
    float backwards = number<float>(10, 4, i);
    for (int r = 3; r >= 0; --r) backwards += number<float>(10, r, i);
    differing += backwards != test::reduced<float>(10, 5, i, Reduction::sum);
  }
  EXPECT_GT(differing, 30);
}

TEST(Comm, NaNIsTheGreatest) {
  run_ranks(3, {}, [](const Comm& world) {
    std::vector<float> x = {float(world.rank()), world.rank() == 1 ? NAN : 1.f};
    world.all_reduce(tensor_of(x), Reduction::max);
    AF_CHECK(x[0] == 2.f && std::isnan(x[1]), "{} {}", x[0], x[1]);
  });
}

TEST(Comm, OneRankAlone) {
  Comm alone;
  test::check_every_operation(alone, false);
  EXPECT_EQ(alone.size(), 1);
  EXPECT_EQ(alone.split(Axis::tp, 0, 0).size(), 1);
}

TEST(Comm, SplitsOfSplits) {
  run_ranks(12, {}, [](const Comm& world) {
    const int r = world.rank();
    const Comm pp = world.split(Axis::pp, r % 3, r), reversed = pp.split(Axis::dp, 0, -r), pair = reversed.split(Axis::tp, reversed.rank() / 2, 7);
    AF_CHECK(pp.size() == 4 && pp.rank() == r / 3 && pp.axis() == Axis::pp, "{} of {}", pp.rank(), pp.size());
    AF_CHECK(reversed.size() == 4 && reversed.rank() == 3 - r / 3, "{} of {}", reversed.rank(), reversed.size());
    AF_CHECK(pair.size() == 2 && pair.rank() == reversed.rank() % 2, "{} of {}", pair.rank(), pair.size());
    AF_CHECK(reversed.world_rank(reversed.rank()) == r && pair.world_rank(pair.rank()) == r, "world ranks of {}", r);
    for (const Comm* c : {&pp, &reversed, &pair}) test::check_reductions<float>(*c, 40, 1), test::check_moves<std::int32_t>(*c, 40, 2);
  });
}

// Many operations under way on groups that cross, each rank at its own pace and waiting in its own order.
TEST(Comm, OverlappingOperationsOfSeveralGroups) {
  for (unsigned seed = 1; seed <= 3; ++seed)
    run_ranks(8, {}, [&](const Comm& world) {
      const int r = world.rank();
      const Comm rows = world.split(Axis::tp, r / 4, r), columns = world.split(Axis::dp, r % 4, r), halves = world.split(Axis::ep, r / 2 % 2, r);
      std::mt19937 random(seed * 100 + unsigned(r)), same(seed);
      for (int round = 0; round < 2; ++round) {
        struct Job {
          const Comm* comm;
          std::vector<float> x, out, wanted;
          std::int64_t at = 0;
          Pending pending;
        };
        std::vector<Job> jobs(30);
        for (std::size_t j = 0; j < jobs.size(); ++j) {
          Job& job = jobs[j];
          const Comm* comms[] = {&world, &rows, &columns, &halves};
          job.comm = comms[same() % 4];
          const int n = job.comm->size(), me = job.comm->rank();
          const std::int64_t c = same() % 6 == 0 ? 40000 : 1 + same() % 50;
          const unsigned kind = same() % 3;
          job.x = numbers<float>(j, me, c * n);
          job.out.resize(std::size_t(c));
          if (random() % 4 == 0) pause(int(random() % 3));
          if (kind == 0) {
            for (std::int64_t i = 0; i < c * n; ++i) job.wanted.push_back(test::reduced<float>(j, n, i, Reduction::sum));
            job.pending = job.comm->all_reduce(tensor_of(job.x));
            job.out.clear();
          } else if (kind == 1) {
            for (std::int64_t i = 0; i < c; ++i) job.wanted.push_back(test::reduced<float>(j, n, me * c + i, Reduction::sum));
            job.pending = job.comm->reduce_scatter(tensor_of(job.x), tensor_of(job.out));
          } else {
            job.out = numbers<float>(j, me, c);
            for (int q = 0; q < n; ++q)
              for (std::int64_t i = 0; i < c; ++i) job.wanted.push_back(number<float>(j, q, i));
            job.pending = job.comm->all_gather(tensor_of(job.out), tensor_of(job.x));
            job.at = 1;
          }
        }
        std::vector<std::size_t> order(jobs.size());
        std::iota(order.begin(), order.end(), 0);
        std::shuffle(order.begin(), order.end(), random);
        for (std::size_t j : order) {
          Job& job = jobs[j];
          job.pending.wait();
          test::expect_same(job.out.empty() || job.at ? job.x : job.out, job.wanted, "an overlapping operation", *job.comm);
        }
      }
    });
}

TEST(Comm, MessagesBesideCollectives) {
  run_ranks(4, {}, [](const Comm& world) {
    const int r = world.rank(), next = (r + 1) % 4, previous = (r + 3) % 4;
    std::vector<Pending> pending;
    std::vector<std::vector<float>> in(20, std::vector<float>(1000)), out, sums;
    for (int i = 0; i < 20; ++i) out.push_back(numbers<float>(std::uint64_t(i), r, 1000)), sums.push_back(out.back());
    for (int i = 0; i < 20; ++i) {
      if (r % 2) pending.push_back(world.all_reduce(tensor_of(sums[std::size_t(i)])));
      pending.push_back(world.send(tensor_of(out[std::size_t(i)]), next));
      pending.push_back(world.receive(tensor_of(in[std::size_t(i)]), previous));
      if (r % 2 == 0) pending.push_back(world.all_reduce(tensor_of(sums[std::size_t(i)])));
    }
    for (Pending& p : pending) p.wait();
    for (int i = 0; i < 20; ++i) test::expect_same(in[std::size_t(i)], numbers<float>(std::uint64_t(i), previous, 1000), "send", world);
  });
}

// A trace of overlap: the data are there before anybody waits.
TEST(Comm, OperationsEndWithoutAWait) {
  run_ranks(3, {}, [](const Comm& world) {
    std::vector<float> x = numbers<float>(1, world.rank(), 200000);
    Pending p = world.all_reduce(tensor_of(x));
    for (int i = 0; i < 5000 && !p.done(); ++i) pause(1);
    AF_CHECK(p.done(), "not done without a wait");
    AF_CHECK(x[77] == test::reduced<float>(1, 3, 77, Reduction::sum), "done, but not summed");
  });
}

TEST(Comm, BytesAreThoseOfTheFormulas) {
  const int n = 4;
  run_ranks(n, {}, [](const Comm& world) {
    const Comm tp = world.split(Axis::tp, world.rank() / 2, 0);
    const AxisBytes before = world.bytes();
    std::vector<float> x(4000), out(1000), all(4000);
    world.all_reduce(tensor_of(x));                      // 2 (n - 1) / n of x
    world.reduce_scatter(tensor_of(x), tensor_of(out));  // (n - 1) / n
    world.all_gather(tensor_of(out), tensor_of(x));      // (n - 1) / n of all
    world.barrier();                                     // none
    const std::vector<std::int64_t> rows = {1000, 1000, 1000, 1000};
    world.all_to_all_v(tensor_of(x), rows, tensor_of(all), rows);  // its own part stays
    tp.send(tensor_of(out), 1 - tp.rank()), tp.receive(tensor_of(out), 1 - tp.rank());
    const AxisBytes after = world.bytes();
    AF_CHECK(after[Axis::world] - before[Axis::world] == 4 * (6000 + 3000 + 3000 + 3000), "{} bytes", after[Axis::world] - before[Axis::world]);
    AF_CHECK(after[Axis::tp] == 4000, "{} bytes of messages", after[Axis::tp]);
    AF_CHECK(after[Axis::dp] == 0, "{} bytes from nowhere", after[Axis::dp]);
  });
}

// By rank 0 or not, all ranks together send what the formula says.
TEST(Comm, BytesOfSmallOperationsInBigGroups) {
  std::atomic<std::int64_t> sent = 0;
  run_ranks(12, {}, [&](const Comm& world) {
    const Comm dp = world.split(Axis::dp, 0, 0);
    for (std::int64_t c : {1, 1000, 100000}) {
      std::vector<float> x(static_cast<std::size_t>(c));
      dp.all_reduce(tensor_of(x));
    }
    sent += world.bytes()[Axis::dp];
  });
  EXPECT_EQ(sent, 2 * 11 * 4 * (1 + 1000 + 100000));
}

TEST(Comm, DifferentOperationsEndTheJob) {
  std::vector<float> x(64);
  using Call = std::function<void(const Comm&)>;
  struct Case {
    const char *what, *first, *second;
    Call usual, odd;  // of rank 2
  };
  auto all_reduce = [](std::int64_t n) {
    return [n](const Comm& c) {
      std::vector<float> v(static_cast<std::size_t>(n));
      c.all_reduce(tensor_of(v));
    };
  };
  const Case cases[] = {
      {"operation", "all_reduce #0", "broadcast #0", all_reduce(8),
       [](const Comm& c) {
         float v = 0;
         c.broadcast(Tensor(&v, DType::f32, {1}), 2);
       }},
      {"roots", "from rank 0", "from rank 2",
       [](const Comm& c) {
         float v = 0;
         c.broadcast(Tensor(&v, DType::f32, {1}), 0);
       },
       [](const Comm& c) {
         float v = 0;
         c.broadcast(Tensor(&v, DType::f32, {1}), 2);
       }},
      {"length", "8 float32", "9 float32", all_reduce(8), all_reduce(9)},
      {"long and short", "100000 float32", "8 float32", all_reduce(100000), all_reduce(8)},
      {"type", "8 float32", "8 int32", all_reduce(8),
       [](const Comm& c) {
         std::vector<std::int32_t> v(8);
         c.all_reduce(tensor_of(v));
       }},
      {"reduction", "sum of", "max of", all_reduce(8),
       [](const Comm& c) {
         std::vector<float> v(8);
         c.all_reduce(tensor_of(v), Reduction::max);
       }},
      {"rows", "hash", "hash",
       [](const Comm& c) {
         std::vector<float> v(8), o(2);
         c.reduce_scatter_v(tensor_of(v), tensor_of(o), std::vector<std::int64_t>{2, 2, 2, 2});
       },
       [](const Comm& c) {
         std::vector<float> v(8), o(3);
         c.reduce_scatter_v(tensor_of(v), tensor_of(o), std::vector<std::int64_t>{2, 1, 3, 2});
       }},
      {"order", "all_reduce #0", "barrier #0", [&](const Comm& c) { all_reduce(8)(c), c.barrier(); },
       [&](const Comm& c) { c.barrier(), all_reduce(8)(c); }},
  };
  for (const Case& c : cases) {
    const double begin = seconds();
    const std::string message = failure(4, {}, [&](const Comm& world) { world.rank() == 2 ? c.odd(world) : c.usual(world); });
    EXPECT_TRUE(contains(message, c.first) && contains(message, c.second) && contains(message, "axis world") && contains(message, "rank 2"))
        << c.what << ": " << message;
    EXPECT_LT(seconds() - begin, 5) << c.what;
  }
}

TEST(Comm, UnequalViewsOfAnExchangeEndTheJob) {
  const std::string exchange = failure(3, {}, [](const Comm& world) {
    std::vector<float> x(6), out(world.rank() == 1 ? 7 : 6);
    std::vector<std::int64_t> sends = {2, 2, 2}, receives = {2, 2, world.rank() == 1 ? 3 : 2};
    world.all_to_all_v(tensor_of(x), sends, tensor_of(out), receives);
  });
  EXPECT_TRUE(contains(exchange, "rank 2 sent 8 bytes to rank 1, which expects 12") && contains(exchange, "all_to_all_v #0 on axis world"))
      << exchange;
  const std::string none = failure(2, {}, [](const Comm& world) {  // one expects nothing
    std::vector<float> x(2), out(world.rank() == 1 ? 1 : 2);
    std::vector<std::int64_t> sends = {1, 1}, receives = {world.rank() == 1 ? 0 : 1, 1};
    world.all_to_all_v(tensor_of(x), sends, tensor_of(out), receives);
  });
  EXPECT_TRUE(contains(none, "rank 0 sent 4 bytes to rank 1, which expects 0")) << none;
  const std::string message = failure(2, {}, [](const Comm& world) {
    std::vector<float> x(world.rank() ? 3 : 4);
    world.rank() ? world.receive(tensor_of(x), 0).wait() : world.send(tensor_of(x), 1).wait();
    world.barrier();
  });
  EXPECT_TRUE(contains(message, "receive #0 on axis world") && contains(message, "rank 0 sent 16 bytes to rank 1, which expects 12")) << message;
  EXPECT_TRUE(contains(failure(2, {},
                               [](const Comm& world) {
                                 std::vector<float> x(4), out(4);
                                 world.all_gather(tensor_of(x), tensor_of(out));
                               }),
                       "all_gather: [4, 1] from 2 ranks to [4, 1]"));
}

TEST(Comm, AThrowingRankFreesTheOthers) {
  for (int waiting : {0, 1}) {  // of the failing rank: an operation under way when it throws
    std::atomic<int> freed = 0;
    const double begin = seconds();
    double thrown = 0;
    std::mutex mutex;
    try {
      run_ranks(5, {}, [&](const Comm& world) {
        const Comm half = world.split(Axis::tp, world.rank() % 2, 0);
        std::vector<float> x(100000), y(10);
        if (world.rank() == 3) {
          Pending p;
          if (waiting) p = world.all_reduce(tensor_of(x));
          pause(50);
          std::lock_guard lock(mutex);
          thrown = seconds();
          throw UserError("no paper");
        }
        try {
          if (world.rank() == 1) half.all_reduce(tensor_of(y));
          world.all_reduce(tensor_of(x));
          world.barrier();
        } catch (const InternalError& error) {
          freed += contains(error.what(), "rank 3: no paper");
          throw;
        }
      });
      ADD_FAILURE() << "nothing thrown";
    } catch (const UserError& error) {
      EXPECT_STREQ(error.what(), "rank 3: no paper");
    }
    EXPECT_EQ(freed, 4);
    EXPECT_LT(seconds() - thrown, 2);
    EXPECT_LT(seconds() - begin, 5);
  }
}

TEST(Comm, AnErrorThatPassesAPendingStopsIt) {
  EXPECT_EQ(failure(2, {},
                    [](const Comm& world) {
                      std::vector<float> x(1000);
                      if (world.rank() == 1) {
                        Pending p = world.receive(tensor_of(x), 0);  // never sent
                        throw InternalError("on the way");
                      }
                      world.barrier();
                    }),
            "rank 1: on the way");
}

TEST(Comm, TheWatchdogNamesWhoIsMissing) {
  ThreadOptions options;
  options.comm.timeout_seconds = 0.5;
  for (int n : {4, 12}) {
    const double begin = seconds();
    const std::string message = failure(n, options, [&](const Comm& world) {
      const Comm dp = world.split(Axis::dp, 0, 0);
      std::vector<float> x(10);
      if (world.rank() == 2) return pause(1200);
      dp.all_reduce(tensor_of(x));
    });
    EXPECT_TRUE(contains(message, "all_reduce #0 on axis dp (sum of 10 float32) has not ended after 0.")) << message;
    EXPECT_TRUE(contains(message, "rank 2 did not arrive") || contains(message, "ranks 2, ")) << message;
    EXPECT_LT(seconds() - begin, 4);
  }
  const std::string message = failure(3, options, [&](const Comm& world) {
    float x = 0;
    if (world.rank() == 0) world.receive(Tensor(&x, DType::f32, {1}), 1);
  });
  EXPECT_TRUE(contains(message, "rank 0: receive #0 on axis world (1 float32) has not ended") && contains(message, "rank 1 did not arrive"))
      << message;
}

TEST(Comm, FaultsOnPurpose) {
  auto run = [](CommFault::What what, CommKind kind, int nth) {  // which of three all_reduces, and whether a message, went wrong
    ThreadOptions options;
    options.fault = {.what = what, .axis = Axis::dp, .kind = kind, .nth = nth};
    std::string wrong = "....";
    run_ranks(3, options, [&](const Comm& world) {
      const Comm dp = world.split(Axis::dp, 0, 0), tp = world.split(Axis::tp, 0, 0);
      std::vector<float> x[3], other = {1.f}, in(1), out = {5.f};
      for (int i = 0; i < 3; ++i) {
        x[i] = {1.f};
        dp.all_reduce(tensor_of(x[i]));
        if (x[i][0] != 3.f && dp.rank() == 0) wrong[std::size_t(i)] = 'x';
      }
      tp.all_reduce(tensor_of(other));
      AF_CHECK(other[0] == 3.f, "another axis");
      if (dp.rank() == 0) dp.send(tensor_of(out), 1);
      if (dp.rank() == 1) dp.receive(tensor_of(in), 0);
      if (dp.rank() == 1 && in[0] != 5.f) wrong[3] = 'x';
      const auto ended = [&] { return std::all_of(x, x + 3, [](std::vector<float>& v) { return std::atomic_ref(v[0]).load() == 3.f; }); };
      for (int i = 0; what == CommFault::What::early_wait && i < 5000 && !ended(); ++i) pause(2);
      AF_CHECK(what != CommFault::What::early_wait || ended(), "what begins late must end");
      world.barrier();
    });
    return wrong;
  };
  using What = CommFault::What;
  EXPECT_EQ(run(What::none, CommKind::all_reduce, -1), "....");
  EXPECT_EQ(run(What::drop, CommKind::all_reduce, -1), "xxx.");
  EXPECT_EQ(run(What::drop, CommKind::all_reduce, 1), ".x..");
  EXPECT_EQ(run(What::drop, CommKind::broadcast, -1), "....");
  EXPECT_EQ(run(What::drop, CommKind::send, 0), "...x");
  EXPECT_EQ(run(What::drop, CommKind::receive, 1), "....");
  if (test::kRacesAreErrors) return;
  std::string found;
  for (int trial = 0; trial < 10 && found != "..x."; ++trial) found = run(What::early_wait, CommKind::all_reduce, 2);  // may be too late to be too early
  EXPECT_EQ(found, "..x.");
}

}  // namespace
}  // namespace af
