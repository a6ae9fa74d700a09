#include "data/mixture.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace af {
namespace {

// |x_i - w_i n| <= 1 - 1 / (2k - 2) for every source after every n (Tijdeman), in long double on the weights as given.
void expect_bound(const std::vector<double>& weights, std::int64_t steps) {
  Mixture mixture(weights);
  long double sum = 0, k = static_cast<long double>(weights.size());
  for (double weight : weights) sum += weight;
  const long double bound = weights.size() == 1 ? 0 : 1 - 1 / (2 * k - 2);
  for (std::int64_t n = 1; n <= steps; ++n) {
    mixture.next();
    for (std::size_t i = 0; i < weights.size(); ++i) {
      ASSERT_LE(std::abs(mixture.taken()[i] - weights[i] / sum * n), bound + 1e-9L) << "source " << i << " after " << n;
    }
  }
  EXPECT_EQ(mixture.total(), steps);
}

TEST(Mixture, BoundHoldsForNastyWeights) {
  expect_bound({1}, 1000);
  expect_bound({0.5, 0.5}, 100000);
  expect_bound({1e-9, 1}, 100000);
  expect_bound({0.55, 0.15, 0.20, 0.10}, 100000);
  expect_bound({1, 1, 1, 1, 1, 1, 1}, 100000);
  expect_bound({1e-12, 3.0, 1e-5, std::sqrt(2.0), 1e-5, std::exp(1.0), 1e-3}, 100000);
  expect_bound({0.999, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4}, 100000);
}

TEST(Mixture, BoundHoldsForRandomWeights) {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 60; ++trial) {
    std::vector<double> weights(2 + random() % 15);
    for (double& weight : weights) weight = std::pow(double(random() % 1000000 + 1) / 1e6, 1 + double(trial % 4));
    expect_bound(weights, 3000);
  }
}

TEST(Mixture, GoesOnFromItsCounts) {
  const std::vector<double> weights{0.55, 0.15, 0.20, 0.10};
  Mixture whole(weights);
  for (int n = 0; n < 777; ++n) whole.next();
  Mixture resumed(weights, whole.taken());
  for (int n = 0; n < 5000; ++n) ASSERT_EQ(resumed.next(), whole.next());
}

TEST(Mixture, FarFromItsBeginning) {  // no overflow after 10^12 sequences
  const std::vector<double> weights{0.25, 0.75};
  Mixture mixture(weights, {250'000'000'000, 750'000'000'000});
  for (int n = 0; n < 1000; ++n) mixture.next();
  EXPECT_EQ(mixture.taken()[0], 250'000'000'250);
}

}  // namespace
}  // namespace af
