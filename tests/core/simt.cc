#include "tests/core/simt.h"

#include <ucontext.h>

#include <algorithm>
#include <deque>
#include <exception>
#include <memory>
#include <random>
#include <string>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {
unsigned seed = 1;

namespace {
constexpr std::size_t kStackBytes = std::size_t(64) << 10;
constexpr int kMostThreads = 1024;

enum class Wait { nothing, block_barrier, lanes, finished };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  void* tsan = nullptr;
  Wait wait = Wait::nothing;
  int line = 0;       // of the barrier it waits at
  unsigned mask = 0;  // of the warp operation it waits in
  int from = 0;
  LaneValue value, result;
};

struct Block {
  std::deque<Fiber> fibers;
  std::vector<char> warps;  // their addresses are what TSan orders a warp's lanes by
  ucontext_t scheduler;
  void* tsan = nullptr;
  const void* stack = nullptr;
  std::size_t stack_bytes = 0;
  int current = -1, threads = 0, index = 0, blocks = 0;
  const std::function<void()>* body = nullptr;
  std::exception_ptr error;
};
thread_local Block* block = nullptr;

Fiber& self() { return block->fibers[std::size_t(block->current)]; }

// Order that the CUDA model really gives, told to TSan: all that was released at `where` happened before an acquire.
void release([[maybe_unused]] void* where) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(where);
#endif
}
void acquire([[maybe_unused]] void* where) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(where);
#endif
}

// The emulator's own accesses to memory are none of TSan's business.
struct Unwatched {
#if defined(__SANITIZE_THREAD__)
  Unwatched() {
    AnnotateIgnoreReadsBegin("", 0);
    AnnotateIgnoreWritesBegin("", 0);
  }
  ~Unwatched() {
    AnnotateIgnoreWritesEnd("", 0);
    AnnotateIgnoreReadsEnd("", 0);
  }
#else
  ~Unwatched() {}
#endif
};

void switch_to_scheduler() {
  Fiber* me;
  {
    Unwatched unwatched;
    me = &self();
  }
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(block->tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
  void* fake;
  __sanitizer_start_switch_fiber(&fake, block->stack, block->stack_bytes);
#endif
  swapcontext(&me->context, &block->scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void switch_to_fiber(Block& b, int thread) {
  Fiber& fiber = b.fibers[std::size_t(thread)];
  b.current = thread;
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(fiber.tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
  void* fake;
  __sanitizer_start_switch_fiber(&fake, fiber.stack.get(), kStackBytes);
#endif
  swapcontext(&b.scheduler, &fiber.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &block->stack, &block->stack_bytes);
#endif
  for (;;) {  // a fiber serves block after block
    acquire(block);
    try {
      (*block->body)();
    } catch (...) {
      block->error = std::current_exception();
    }
    release(&block->body);
    {
      Unwatched unwatched;
      self().wait = Wait::finished;
    }
    switch_to_scheduler();
  }
}

void prepare(Block& b) {
  b.warps.resize(std::size_t(b.threads / kWarp + 1));
  if (b.fibers.size() < std::size_t(b.threads)) b.fibers.resize(std::size_t(b.threads));
#if defined(__SANITIZE_THREAD__)
  b.tsan = __tsan_get_current_fiber();
#endif
  for (int i = 0; i < b.threads; ++i) {
    Fiber& fiber = b.fibers[std::size_t(i)];
    fiber.wait = Wait::nothing;
    if (fiber.stack) continue;
    fiber.stack.reset(new char[kStackBytes]);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
#if defined(__SANITIZE_THREAD__)
    fiber.tsan = __tsan_create_fiber(0);
#endif
  }
}

// The warp operation in which `thread` waits: done if all lanes that it names have come. Those are then ready.
void finish_warp_operation(Block& b, int thread, std::vector<int>& ready) {
  const unsigned mask = b.fibers[std::size_t(thread)].mask;
  const int first = thread / kWarp * kWarp;
  bool all_here = true;
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!(mask >> lane & 1)) continue;
    if (first + lane >= b.threads) throw Error("warp operation: names a lane that does not exist");
    const Fiber& other = b.fibers[std::size_t(first + lane)];
    if (other.wait == Wait::lanes && other.mask != mask) throw Error("warp operation: lanes name different masks");
    all_here &= other.wait == Wait::lanes;
  }
  if (!all_here) return;
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!(mask >> lane & 1)) continue;
    Fiber& fiber = b.fibers[std::size_t(first + lane)];
    const bool named = fiber.from >= 0 && fiber.from < kWarp && (mask >> fiber.from & 1);
    fiber.result = b.fibers[std::size_t(first + (named ? fiber.from : lane))].value;
    fiber.wait = Wait::nothing;
    ready.push_back(first + lane);
  }
}

// The block's barrier: done if all threads stand at it; some may have returned only if none waits.
int finish_block_barrier(Block& b, std::vector<int>& ready) {
  int waiting = 0;
  int line = 0;
  bool different = false;
  for (int i = 0; i < b.threads; ++i) {
    const Fiber& fiber = b.fibers[std::size_t(i)];
    if (fiber.wait != Wait::block_barrier) continue;
    different |= line && line != fiber.line;
    line = fiber.line;
    ++waiting;
  }
  if (waiting < b.threads) return waiting;
  if (different) throw Error("the threads of a block stand at different barriers");
  for (int i = 0; i < b.threads; ++i) {
    b.fibers[std::size_t(i)].wait = Wait::nothing;
    ready.push_back(i);
  }
  return 0;
}

void run_block(Block& b, unsigned order) {
  release(&b);
  prepare(b);
  std::minstd_rand random(order + 1);
  std::vector<int> ready(std::size_t(b.threads)), turn;
  for (int i = 0; i < b.threads; ++i) ready[std::size_t(i)] = i;
  for (int finished = 0; finished < b.threads;) {
    turn.swap(ready);
    ready.clear();
    std::shuffle(turn.begin(), turn.end(), random);
    for (const int i : turn) {
      switch_to_fiber(b, i);
      if (b.error) std::rethrow_exception(b.error);
      finished += b.fibers[std::size_t(i)].wait == Wait::finished;
    }
    for (int i = 0; i < b.threads; ++i) {
      if (b.fibers[std::size_t(i)].wait == Wait::lanes) finish_warp_operation(b, i, ready);
    }
    const int at_barrier = finish_block_barrier(b, ready);
    if (ready.empty() && finished < b.threads) {
      throw Error("deadlock: " + std::to_string(finished) + " threads have returned, " + std::to_string(at_barrier) + " stand at a barrier, " +
                  std::to_string(b.threads - finished - at_barrier) + " in a warp operation");
    }
  }
}
}  // namespace

int thread_index() { return block->current; }
int block_index() { return block->index; }
int threads_per_block() { return block->threads; }
int blocks_per_grid() { return block->blocks; }

void launch(int blocks, int threads, const std::function<void()>& body) {
  if (blocks < 1 || threads < 1 || threads > kMostThreads) throw Error("invalid launch: " + std::to_string(blocks) + " x " + std::to_string(threads));
  static thread_local Block b;
  release(&b);
  Unwatched unwatched;
  block = &b;
  b.blocks = blocks;
  b.threads = threads;
  b.body = &body;
  b.error = nullptr;
  std::vector<int> order(static_cast<std::size_t>(blocks));
  for (int i = 0; i < blocks; ++i) order[std::size_t(i)] = i;
  std::shuffle(order.begin(), order.end(), std::minstd_rand(seed));
  try {
    for (const int i : order) {
      b.index = i;
      run_block(b, seed * 7919 + unsigned(i));
      acquire(&b.body);  // orders the blocks, for they share our one `__shared__`
    }
  } catch (...) {
    acquire(&b.body);
    acquire(&b);
    for (char& warp : b.warps) acquire(&warp);
    b.fibers.clear();  // what their frames own leaks: a kernel owns nothing
    block = nullptr;
    throw;
  }
  block = nullptr;
}

void sync_block(int line) {
  release(block);
  {
    Unwatched unwatched;
    Fiber& fiber = self();
    fiber.wait = Wait::block_barrier;
    fiber.line = line;
    switch_to_scheduler();
  }
  acquire(block);
}

LaneValue exchange(unsigned mask, const LaneValue& mine, int from) {
  char* const warp = &block->warps[std::size_t(block->current / kWarp)];
  release(warp);
  LaneValue result;
  {
    Unwatched unwatched;
    Fiber& fiber = self();
    if (!(mask >> block->current % kWarp & 1)) throw Error("warp operation: the calling lane is not in its mask");
    fiber.wait = Wait::lanes;
    fiber.mask = mask;
    fiber.from = from;
    fiber.value = mine;
    switch_to_scheduler();
    result = fiber.result;
  }
  acquire(warp);
  return result;
}

}  // namespace simt
