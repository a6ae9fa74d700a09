// Ranks as processes: what tests/mpi/run.py starts with mpirun.
//   mpi_probe operations | small | bytes | killed | hanging | stopped | throwing | differing | starting | ending | late | bench
//             [TIMEOUT_SECONDS [HEARTBEAT_SECONDS [RECORDER_DIRECTORY]]]
//   mpi_probe trace FILE
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "parallel/comm_mpi.h"
#include "parallel/comm_trace.h"
#include "tests/parallel/comm_cases.h"

namespace {
using namespace af;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// The splits of a mesh of pairs, and of a split again.
void operations(const Comm& world, bool large) {
  const int r = world.rank();
  test::check_every_operation(world, large);
  const Comm tp = world.split(Axis::tp, r / 2, r), dp = world.split(Axis::dp, r % 2, r), reversed = dp.split(Axis::cp, 0, -r);
  for (const Comm* c : {&tp, &dp, &reversed}) test::check_every_operation(*c, large);
}

void bytes(const Comm& world) {
  const int r = world.rank(), n = world.size();
  const Comm tp = world.split(Axis::tp, r / 2, r), dp = world.split(Axis::dp, r % 2, r);
  std::vector<float> x(std::size_t(n) * 10000, 1.f);
  for (int i = 0; i < 3; ++i) {
    world.all_reduce(test::tensor_of(x));
    tp.all_reduce(test::tensor_of(x));
    dp.reduce_scatter(test::tensor_of(x).slice_rows(0, dp.size() * 500), test::tensor_of(x).slice_rows(0, 500));
    tp.barrier();
  }
  const AxisBytes sent = world.bytes();
  std::string line = "engine " + std::to_string(r);
  for (int a = 0; a < kAxes; ++a) line += " " + std::to_string(sent[Axis(a)]);
  std::printf("%s\n", line.c_str());
}

template <class F>
double median(int times, F f) {
  std::vector<double> t;
  for (int i = 0; i < times; ++i) {
    const double begin = seconds();
    f();
    t.push_back(seconds() - begin);
  }
  std::sort(t.begin(), t.end());
  return t[t.size() / 2];
}

void bench(const Comm& world) {
  std::vector<float> small(256), large(world.size() == 2 ? 16 << 20 : 1);
  auto line = [&](const char* what, double t) {
    if (world.rank() == 0) std::printf("%d ranks: %s %.1f us\n", world.size(), what, t * 1e6), std::fflush(stdout);
  };
  const int rounds = world.size() <= 4 ? 1000 : 50;
  world.barrier();
  if (world.size() == 2) {
    line("1 KB ping-pong (one way)", median(rounds, [&] {
                                       if (world.rank() == 0) {
                                         world.send(test::tensor_of(small), 1);
                                         world.receive(test::tensor_of(small), 1);
                                       } else {
                                         world.receive(test::tensor_of(small), 0);
                                         world.send(test::tensor_of(small), 0);
                                       }
                                     }) / 2);
    line("64 MB all_reduce", median(7, [&] { world.all_reduce(test::tensor_of(large)); }));
  }
  for (std::int64_t kb : {4, 16, 64, 1024}) {
    std::vector<float> x(std::size_t(kb) * 256);
    line((std::to_string(kb) + " KB all_reduce").c_str(), median(world.size() <= 8 ? 50 : 11, [&] { world.all_reduce(test::tensor_of(x)); }));
  }
  line("1 KB all_reduce", median(rounds, [&] { world.all_reduce(test::tensor_of(small)); }));
  line("barrier", median(rounds, [&] { world.barrier(); }));
}

// An operation that overlaps with the program: it ends before anybody waits for it.
void trace(const Comm& world, const std::string& path) {
  const Comm dp = world.split(Axis::dp, 0, 0);
  std::vector<float> x(100000);
  Pending p = dp.all_reduce(test::tensor_of(x));
  for (int i = 0; i < 20'000 && !p.done(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  p.wait();
  write_trace(world, path);
}

// Rank 1 fails in some way while the others wait for it.
void fail(MpiWorld& mpi, const Comm& world, const std::string& how) {
  std::vector<float> x(100);
  world.all_reduce(test::tensor_of(x));
  if (world.rank() == 1) {
    if (how == "killed") raise(SIGKILL);
    if (how == "hanging") raise(SIGSTOP);
    if (how == "throwing") mpi.abort("no more paper", kExitFailed);
    if (how == "differing") world.broadcast(test::tensor_of(x), 0);
  }
  world.all_reduce(test::tensor_of(x));
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const double begin = seconds();
  if (!started_by_mpi(std::getenv("OMPI_COMM_WORLD_SIZE"), std::getenv("PMIX_RANK"))) {
    std::fprintf(stderr, "mpi_probe: start it with mpirun\n");
    return kExitUsage;
  }
  CommOptions options;
  options.trace = what == "trace";
  if (argc > 2 && !options.trace) options.timeout_seconds = std::atof(argv[2]);
  if (argc > 3) options.heartbeat_seconds = std::atof(argv[3]);
  if (argc > 4) options.recorder_directory = argv[4];
  if (const char* local = std::getenv("OMPI_COMM_WORLD_LOCAL_SIZE")) options.ranks_on_host = std::atoi(local);
  const bool second = std::getenv("OMPI_COMM_WORLD_RANK") && std::getenv("OMPI_COMM_WORLD_RANK") == std::string("1");
  if (what == "starting" && second) raise(SIGSTOP);
  MpiWorld mpi(options);
  const Comm world = mpi.world();
  const int rank = mpi.rank();
  try {
    if (what == "operations") {
      operations(world, true);
    } else if (what == "small") {
      operations(world, false);
    } else if (what == "bytes") {
      bytes(world);
    } else if (what == "trace" && argc > 2) {
      trace(world, argv[2]);
    } else if (what == "bench") {
      if (rank == 0) std::printf("%d ranks: started in %.2f s\n", mpi.size(), seconds() - begin);
      bench(world);
    } else if (what == "stopped") {  // all compute: no operation waits for the rank
      if (rank == 1) raise(SIGSTOP);
      std::this_thread::sleep_for(std::chrono::seconds(60));
    } else if (what == "late") {  // of more than a heartbeat, in an operation and at the end
      if (rank == 1) std::this_thread::sleep_for(std::chrono::milliseconds(2500));
      world.barrier();
      if (rank == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2500));
      if (rank == 0) std::printf("bytes %lld\n", static_cast<long long>(world.bytes()[Axis::world]));
      return 0;
    } else if (what == "orphaned") {
      if (second) kill(getppid(), SIGKILL);
      std::this_thread::sleep_for(std::chrono::seconds(60));
    } else if (what != "ending" && what != "starting") {
      fail(mpi, world, what);
    }
    world.barrier();
    if (what == "ending" && second) raise(SIGSTOP);
    if (rank == 0) std::printf("%s: right on %d ranks\n", what.c_str(), mpi.size());
  } catch (const std::exception& error) {
    mpi.abort(error.what(), kExitFailed);
  }
}
