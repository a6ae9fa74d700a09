// Items worked on by several threads, each as a whole by one; results are taken in the order of the items.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace af {

// next() gives the items one by one (nullopt: there are no more) and is called by one thread at a time; work(item) by all of them;
// take(result) by the caller's, in order. Not more than 4 results a thread wait. Where one of them throws, no item is begun any more,
// stop() is called at once for work() that waits to end, and what was thrown first in time is thrown here.
template <class Item, class Result>
void in_order(int threads, const std::function<std::optional<Item>()>& next, const std::function<Result(Item&)>& work,
              const std::function<void(Result&)>& take, const std::function<void()>& stop) {
  struct Finished {
    std::optional<Result> result;
    bool failed = false;
  };
  std::mutex mutex, next_mutex;
  std::condition_variable changed;
  std::map<std::int64_t, Finished> finished;
  std::exception_ptr failure;  // the first; what is thrown after it may only be due to stop()
  std::int64_t begun = 0, taken = 0, running = threads;
  bool ended = false;  // no item is begun any more
  const std::int64_t most = 4 * std::int64_t(threads);

  const auto fail = [&](std::exception_ptr what) {
    {
      std::unique_lock lock(mutex);
      ended = true;
      if (!failure) failure = what;
    }
    changed.notify_all();
    stop();
  };
  const auto run = [&] {
    for (;;) {
      std::int64_t number = 0;
      Finished done;
      {
        std::unique_lock only(next_mutex);
        std::optional<Item> item;
        {
          std::unique_lock lock(mutex);
          changed.wait(lock, [&] { return ended || begun - taken < most; });
          if (ended) break;
          number = begun++;
        }
        try {
          item = next();
          if (!item) {
            std::unique_lock lock(mutex);
            ended = true, --begun;
            break;
          }
        } catch (...) {
          done.failed = true, fail(std::current_exception());
        }
        only.unlock();
        if (!done.failed) {
          try {
            done.result.emplace(work(*item));
          } catch (...) {
            done.failed = true, fail(std::current_exception());
          }
        }
      }
      {
        std::unique_lock lock(mutex);
        finished[number] = std::move(done);
      }
      changed.notify_all();
    }
    std::unique_lock lock(mutex);
    --running;
    changed.notify_all();
  };

  std::vector<std::thread> workers;
  for (int i = 0; i < threads; ++i) workers.emplace_back(run);
  for (;;) {
    Finished one;
    {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return finished.contains(taken) || running == 0; });
      if (!finished.contains(taken)) break;
      one = std::move(finished[taken]);
      finished.erase(taken++);
    }
    changed.notify_all();
    if (one.failed) break;
    try {
      take(*one.result);
    } catch (...) {
      fail(std::current_exception());
      break;
    }
  }
  for (std::thread& worker : workers) worker.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace af
