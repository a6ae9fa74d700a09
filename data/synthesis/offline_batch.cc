#include "data/synthesis/offline_batch.h"

#include <array>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "data/duplicates.h"

namespace af {
namespace {

constexpr std::int64_t kChunk = 32;     // numbers handed out at once
constexpr std::int64_t kAhead = 64;     // chunks that may wait, a thread
constexpr std::int64_t kPatience = 40;  // numbers tried for each sample kept, before it is given up

struct Made {
  Sample sample;
  std::int64_t bytes = 0;
  std::array<std::uint16_t, kSignature> signature;
};
using Chunk = std::vector<std::optional<Made>>;

struct Shared {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::int64_t, Chunk> ready;
  std::int64_t next = 0, taken = 0;  // chunks handed out; consumed
  bool stop = false;
  std::exception_ptr error;
};

void work(Shared& shared, const std::function<MakeSample()>& worker, int threads) {
  try {
    const MakeSample make = worker();
    for (;;) {
      std::int64_t number = 0;
      {
        std::unique_lock lock(shared.mutex);
        shared.changed.wait(lock, [&] { return shared.stop || shared.next < shared.taken + kAhead * threads; });
        if (shared.stop) return;
        number = shared.next++;
      }
      Chunk chunk;
      for (std::int64_t i = number * kChunk; i < (number + 1) * kChunk; ++i) {
        chunk.emplace_back();
        std::optional<Sample> sample = make(i);
        if (!sample) continue;
        Made& made = chunk.back().emplace();
        const std::string text = text_of(*sample);
        minhash(text, made.signature.data());
        made.bytes = std::int64_t(text.size()), made.sample = std::move(*sample);
      }
      const std::lock_guard lock(shared.mutex);
      shared.ready.emplace(number, std::move(chunk));
      shared.changed.notify_all();
    }
  } catch (...) {
    const std::lock_guard lock(shared.mutex);
    if (!shared.error) shared.error = std::current_exception();
    shared.changed.notify_all();
  }
}

class Threads {  // stops and joins whatever happens
 public:
  Threads(Shared& shared, const std::function<MakeSample()>& worker, int count) : shared_(shared) {
    for (int i = 0; i < count; ++i) threads_.emplace_back([&shared, &worker, count] { work(shared, worker, count); });
  }
  ~Threads() {
    {
      const std::lock_guard lock(shared_.mutex);
      shared_.stop = true;
    }
    shared_.changed.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  Threads(const Threads&) = delete;

 private:
  Shared& shared_;
  std::vector<std::thread> threads_;
};

}  // namespace

BatchCounts make_batch(const BatchOptions& options, const std::function<MakeSample()>& worker, const std::function<void(const Sample&)>& keep) {
  BatchCounts counts;
  NearIndex near(options.near_threshold);
  Shared shared;
  const Threads threads(shared, worker, options.threads);
  std::int64_t tried = 0;
  while (counts.kept < options.count && tried < kPatience * (counts.kept + 100)) {
    Chunk chunk;
    {
      std::unique_lock lock(shared.mutex);
      shared.changed.wait(lock, [&] { return shared.error || shared.ready.contains(shared.taken); });
      if (!shared.ready.contains(shared.taken)) std::rethrow_exception(shared.error);
      chunk = std::move(shared.ready.extract(shared.taken++).mapped());
    }
    shared.changed.notify_all();
    for (const std::optional<Made>& made : chunk) {
      if (counts.kept == options.count) break;
      ++tried;
      if (!made) {
        ++counts.empty;
      } else if (near.find_or_add(made->signature.data(), counts.kept)) {
        ++counts.near_duplicates;
      } else {
        ++counts.kept, counts.bytes += made->bytes;
        keep(made->sample);
      }
    }
  }
  return counts;
}

}  // namespace af
