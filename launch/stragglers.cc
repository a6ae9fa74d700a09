#include "launch/stragglers.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace af {
namespace {
constexpr std::int64_t kHostWords = 16;  // of 4 bytes
}

Stragglers::Stragglers(const Comm& world) {
  std::vector<std::int32_t> all(std::size_t(kHostWords * world.size()), 0);
  std::int32_t* own = all.data() + kHostWords * world.rank();
  gethostname(reinterpret_cast<char*>(own), 4 * kHostWords - 1);
  if (world.size() > 1)
    world.all_gather(Tensor(own, DType::i32, {1, kHostWords}), Tensor(all.data(), DType::i32, {std::int64_t(world.size()), kHostWords})).wait();
  for (int r = 0; r < world.size(); ++r) {
    const char* name = reinterpret_cast<const char*>(all.data() + kHostWords * r);
    hosts_.emplace_back(name, strnlen(name, 4 * kHostWords));
  }
}

void Stragglers::begin(const MeshShape& shape) {
  stage_of_.clear();
  for (int r = 0; r < int(hosts_.size()); ++r) stage_of_.push_back(position_of(shape, r).pp);
  sums_.assign(hosts_.size(), 0);
  slow_.assign(hosts_.size(), 0);
  steps_ = 0;
}

std::vector<Straggler> Stragglers::add(std::span<const double> seconds) {
  AF_CHECK(seconds.size() == sums_.size(), "times of {} ranks of {}", seconds.size(), sums_.size());
  for (std::size_t r = 0; r < sums_.size(); ++r) sums_[r] += seconds[r];
  std::vector<Straggler> found;
  if (++steps_ < kSteps) return found;
  const int stages = 1 + *std::max_element(stage_of_.begin(), stage_of_.end());
  for (int stage = 0; stage < stages; ++stage) {
    std::vector<double> times;
    for (std::size_t r = 0; r < sums_.size(); ++r)
      if (stage_of_[r] == stage) times.push_back(sums_[r]);
    std::vector<double>::iterator middle = times.begin() + std::ptrdiff_t((times.size() - 1) / 2);  // of two the faster one
    std::nth_element(times.begin(), middle, times.end());
    for (std::size_t r = 0; r < sums_.size(); ++r) {
      if (stage_of_[r] != stage) continue;
      const bool slow = sums_[r] > kSlow * *middle;
      if (slow && !slow_[r]) found.push_back({int(r), hosts_[r], sums_[r] / kSteps, *middle / kSteps});
      slow_[r] = slow;
    }
  }
  std::fill(sums_.begin(), sums_.end(), 0);
  steps_ = 0;
  return found;
}

}  // namespace af
