// No heap allocation in any operation of a Comm, once each group has seen its largest.
#include <cstdio>

#include "parallel/comm_threads.h"
#include "tests/counting_malloc.h"
#include "tests/parallel/comm_cases.h"

int main() {
  using namespace af;
  using test::tensor_of;
  int passed = 0, failed = 0;
  for (int n : {2, 4, 12}) {
    long counted = 0;
    run_ranks(n, {}, [&](const Comm& world) {
      const Comm pair = world.split(Axis::tp, world.rank() / 2, 0);
      std::vector<float> x(std::size_t(n) * 30000), out(30000), y(64), big(x.size());
      const std::vector<std::int64_t> rows(std::size_t(n), 30000);
      for (int step = 0; step < 40; ++step) {
        world.barrier();
        if (world.rank() == 0 && step == 10) counted = -__atomic_load_n(&calls, __ATOMIC_RELAXED);
        world.barrier();
        Pending a = world.all_reduce(tensor_of(x)), b = pair.all_reduce(tensor_of(y)), c = world.reduce_scatter(tensor_of(big), tensor_of(out));
        a.wait(), b.wait(), c.wait();
        Pending d = world.all_to_all_v(tensor_of(x), rows, tensor_of(big), rows);
        d.wait();
        world.all_gather(tensor_of(out), tensor_of(x));
        world.broadcast(tensor_of(x), step % n);
        Pending e = pair.receive(tensor_of(y), 1 - pair.rank()), f = pair.receive(tensor_of(out), 1 - pair.rank());
        Pending g = pair.send(tensor_of(big).slice_rows(0, 64), 1 - pair.rank()), h = pair.send(tensor_of(x).slice_rows(0, 30000), 1 - pair.rank());
      }
      world.barrier();
      if (world.rank() == 0) counted += __atomic_load_n(&calls, __ATOMIC_RELAXED);
      world.barrier();
    });
    counted == 0 ? ++passed : ++failed;
    if (counted) std::printf("%d ranks: %ld calls of malloc\n", n, counted);
  }
  const long before = calls;  // the counter counts
  std::vector<int> heap(10);
  calls > before && !heap.empty() ? ++passed : ++failed;
  std::printf("%d passed, %d failed, 0 skipped\n", passed, failed);
  return failed > 0;
}
