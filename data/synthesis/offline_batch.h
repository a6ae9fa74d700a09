// Samples made by several threads, kept in the order of their numbers, without near duplicates: the same for any number of
// threads.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>

#include "data/synthesis/sample.h"

namespace af {

struct BatchOptions {
  std::int64_t count = 0;  // of samples wanted
  int threads = 1;
  double near_threshold = 0.7;  // word 5-grams; a sample that is as near to an earlier one is dropped (data/duplicates.h)
};

struct BatchCounts {
  std::int64_t kept = 0, near_duplicates = 0, empty = 0;  // empty: numbers for which there was none
  std::int64_t bytes = 0;                                 // of the samples' texts
};

// Makes sample 0, 1, 2, ... until `count` of them are kept, or until hardly any new one comes: then kept < count.
// make(worker): called once in each thread, gives the function from a number to its sample; keep is called in order, in this thread.
// What make throws is thrown here.
using MakeSample = std::function<std::optional<Sample>(std::int64_t number)>;
BatchCounts make_batch(const BatchOptions& options, const std::function<MakeSample()>& worker, const std::function<void(const Sample&)>& keep);

}  // namespace af
