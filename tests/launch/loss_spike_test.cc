// What counts as a loss spike, and which samples it is charged to.
#include "launch/loss_spike.h"

#include <gtest/gtest.h>

#include <cmath>

namespace af {
namespace {

TEST(LossSpike, IsAboveTheMedianOfTheLast) {
  const std::vector<double> losses = {100, 2, 4, 3, 5};
  EXPECT_EQ(median_below(losses, 7.1, 2, 4), 3.5);
  EXPECT_EQ(median_below(losses, 7.0, 2, 4), std::nullopt);  // not above
  EXPECT_EQ(median_below(losses, 8.1, 2, 5), 4);             // an earlier spike does not move it far
  EXPECT_EQ(median_below(losses, 1e9, 2, 6), std::nullopt);  // too few yet
  EXPECT_EQ(median_below(losses, 10.1, 2, 1), 5);
  EXPECT_EQ(median_below(losses, INFINITY, 2, 4), std::nullopt);
  EXPECT_EQ(median_below(losses, NAN, 2, 4), std::nullopt);
}

TEST(LossSpike, ItsSamplesAreThoseOfTheLastSteps) {
  StreamState stream;
  EXPECT_EQ(spike_of(stream, 40, 8, 1).samples, (PassedOver{40, 8}));
  EXPECT_EQ(spike_of(stream, 40, 8, 3).samples, (PassedOver{24, 24}));
  EXPECT_EQ(spike_of(stream, 40, 8, 3).first_sequence, 24);
  // Where others have been passed over, places and numbers differ; a range between the steps is passed over once more.
  stream.pass_over(10, 15);
  stream.pass_over(37, 39);
  EXPECT_EQ(spike_of(stream, 40, 8, 1).samples, (PassedOver{47, 8}));
  EXPECT_EQ(spike_of(stream, 40, 8, 3).samples, (PassedOver{29, 26}));
  stream.pass_over(29, 55);
  EXPECT_EQ(stream.passed_over, (std::vector<PassedOver>{{10, 5}, {29, 26}}));
  const LossSpike spike{"s", 7, 9.25, 2.1, 3, 24, {29, 26}, 5};
  const Json json = to_json(spike);
  EXPECT_EQ(loss_spike_from(JsonView(json, "state")), spike);
}

}  // namespace
}  // namespace af
