// No heap allocation in forward, backward and optimizer after the third step.
#include <cstdio>

#include "tests/counting_malloc.h"
#include "tests/models/tiny.h"

int main() {
  using namespace af;
  using namespace af::test;
  int passed = 0, failed = 0;
  auto check = [&](const char* what, bool good, long count) {
    good ? ++passed : ++failed;
    if (!good) std::printf("%s: %ld calls of malloc\n", what, count);
  };
  std::vector<std::int64_t> lengths = {5, 1, 6, 3, 9}, other_lengths = {9, 3, 12};
  for (bool moe : {false, true})
    for (DType dtype : {DType::f32, DType::bf16})
      for (bool full : {false, true}) {
        ModelConfig config = tiny_config(moe);
        TinyModel m(config, dtype, 2);
        m.balance = {BalanceType::global_aux_loss, 0.1, 0.01};
        if (full) m.recompute.granularity = RecomputeSettings::Granularity::full;
        Optimizer optimizer(m.device, m.set);
        TinyBatch batches[] = {{lengths, config.vocab_size, 1}, {other_lengths, config.vocab_size, 2}};  // routing and documents differ from step to step
        long before = 0;
        for (int step = 0; step < 8; ++step) {
          if (step == 3) before = __atomic_load_n(&calls, __ATOMIC_RELAXED);
          m.forward_backward(batches[step % 2]);
          for (RouterStatistics& s : m.model.router_statistics()) s.end_step();
          optimizer.step(m.context, {}, 1e-4);
        }
        check(moe ? "MoE" : "dense", calls == before, calls - before);
      }
  long before = calls;  // the counter counts
  std::free(std::malloc(1));
  std::vector<int> heap(10);
  check("the counter", calls >= before + 1 && !heap.empty(), calls - before);
  std::printf("%d passed, %d failed, 0 skipped\n", passed, failed);
  return failed > 0;
}
