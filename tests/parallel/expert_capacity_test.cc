// What goes beyond a capacity, against counting for every choice those with the better right.
#include "parallel/expert_capacity.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <vector>

#include "core/random.h"

namespace af {
namespace {

struct Choices {
  std::vector<std::int32_t> expert;
  std::vector<double> weight;
  std::vector<std::int64_t> place;  // of the tokens
};

// Distinct experts for each token, few different weights: many ties.
Choices random_choices(std::uint64_t seed, int tokens, int top_k, int experts) {
  Choices c;
  std::uint64_t draw = 0;
  auto below = [&](int n) { return int(random_below(seed, 3, draw++, std::uint64_t(n))); };
  for (int t = 0; t < tokens; ++t) {
    int first = below(experts);
    for (int s = 0; s < top_k; ++s) {
      c.expert.push_back((first + s) % experts);
      c.weight.push_back(double(below(4)) / 4);
    }
  }
  c.place.resize(std::size_t(tokens));
  std::iota(c.place.begin(), c.place.end(), 0);
  for (int t = tokens - 1; t > 0; --t) std::swap(c.place[std::size_t(t)], c.place[std::size_t(below(t + 1))]);
  return c;
}

std::vector<std::int32_t> dropped(Choices& c, std::int64_t capacity, DropPolicy policy, int experts) {
  std::vector<std::int32_t> out(c.expert.size(), -7);
  std::int64_t n = std::int64_t(out.size());
  drop_beyond_capacity(capacity, policy, experts, c.place, Tensor(c.expert.data(), DType::i32, {n}), Tensor(c.weight.data(), DType::f64, {n}),
                       Tensor(out.data(), DType::i32, {n}));
  return out;
}

TEST(ExpertCapacity, Formula) {  // Megatron-LM: ceil(tokens * top_k / experts * factor)
  EXPECT_EQ(expert_capacity(1024, 8, 128, 1), 64);
  EXPECT_EQ(expert_capacity(1024, 8, 128, 1.25), 80);
  EXPECT_EQ(expert_capacity(1000, 8, 128, 1), 63);
  EXPECT_EQ(expert_capacity(4, 2, 128, 1), 1);
  EXPECT_EQ(expert_capacity(24, 2, 5, 0.6), 6);
}

TEST(ExpertCapacity, EqualsCounting) {
  for (std::uint64_t seed = 0; seed < 20; ++seed)
    for (DropPolicy policy : {DropPolicy::probs, DropPolicy::position})
      for (std::int64_t capacity : {1, 3, 8, 100}) {
        const int tokens = 5 + int(seed) * 3, top_k = 1 + int(seed % 4), experts = 5;
        Choices c = random_choices(seed, tokens, top_k, experts);
        const std::vector<std::int32_t> out = dropped(c, capacity, policy, experts);
        for (std::size_t i = 0; i < out.size(); ++i) {
          std::int64_t before = 0;
          for (std::size_t j = 0; j < out.size(); ++j) {
            if (c.expert[j] != c.expert[i]) continue;
            const bool tie = policy == DropPolicy::position || c.weight[j] == c.weight[i];
            before += tie ? c.place[j / std::size_t(top_k)] < c.place[i / std::size_t(top_k)] : c.weight[j] > c.weight[i];
          }
          EXPECT_EQ(out[i], before < capacity ? c.expert[i] : experts) << "choice " << i;
        }
      }
}

// Ranks have the choices in another order, and find the same.
TEST(ExpertCapacity, OrderOfTheTokensDoesNotMatter) {
  Choices a = random_choices(9, 40, 2, 4), b = a;
  for (int t = 0; t < 40; ++t) {
    const std::size_t to = std::size_t(39 - t);
    b.place[to] = a.place[std::size_t(t)];
    for (std::size_t s = 0; s < 2; ++s) b.expert[to * 2 + s] = a.expert[std::size_t(t) * 2 + s], b.weight[to * 2 + s] = a.weight[std::size_t(t) * 2 + s];
  }
  for (DropPolicy policy : {DropPolicy::probs, DropPolicy::position}) {
    const std::vector<std::int32_t> x = dropped(a, 7, policy, 4), y = dropped(b, 7, policy, 4);
    for (std::size_t t = 0; t < 40; ++t)
      for (std::size_t s = 0; s < 2; ++s) EXPECT_EQ(x[t * 2 + s], y[(39 - t) * 2 + s]);
  }
}

// A step that is skipped for its NaN must get that far.
TEST(ExpertCapacity, NoNumbers) {
  Choices c = random_choices(2, 200, 2, 4);
  for (double& w : c.weight) w = std::numeric_limits<double>::quiet_NaN();
  std::vector<int> kept(5);
  for (std::int32_t e : dropped(c, 10, DropPolicy::probs, 4)) ++kept[std::size_t(e)];
  EXPECT_EQ(kept, (std::vector<int>{10, 10, 10, 10, 360}));
}

}  // namespace
}  // namespace af
