// Losses by role and position against sums taken the long way.
#include "launch/validation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "data/json.h"

namespace af {
namespace {

constexpr std::int64_t kLength = 300;

PackedSequence random_sequence(std::mt19937& random, bool roles) {
  PackedSequence s;
  std::int64_t position = 0;
  for (std::int64_t i = 0; i < kLength; ++i, ++position) {
    if (random() % 97 == 0) position = 0;
    s.tokens.push_back(0);
    s.positions.push_back(std::int32_t(position));
    s.targets.push_back(random() % 5 == 0 ? -1 : 7);
    s.roles.push_back(roles ? std::uint8_t(random() % 6) : 0);
  }
  return s;
}

// The sum over the tokens that `wanted` picks, in long double.
template <class F>
LossSum brute_force(const std::vector<PackedSequence>& sequences, const std::vector<std::vector<double>>& losses, F&& wanted) {
  long double sum = 0;
  LossSum out;
  for (std::size_t n = 0; n < sequences.size(); ++n)
    for (std::size_t i = 0; i < std::size_t(kLength); ++i)
      if (sequences[n].targets[i] >= 0 && wanted(sequences[n], i)) sum += losses[n][i], ++out.targets;
  out.loss = double(sum);
  return out;
}

TEST(LossTable, RolesAndPositionsAreTheLongWays) {
  std::mt19937 random(3);
  LossTable table(kLength);
  std::vector<PackedSequence> sequences;
  std::vector<std::vector<double>> losses;
  for (int n = 0; n < 20; ++n) {
    sequences.push_back(random_sequence(random, true));
    losses.emplace_back();
    for (std::int64_t i = 0; i < kLength; ++i) losses.back().push_back(double(random()) * 1e-9 + (i % 7 == 0 ? 1e6 : 0));
    table.add(sequences.back(), Tensor(losses.back().data(), DType::f64, {kLength}));
  }
  const ValidationResult result = table.result();
  const auto same = [](const LossSum& a, const LossSum& b) {
    EXPECT_EQ(a.targets, b.targets);
    EXPECT_NEAR(a.loss, b.loss, 1e-12 * b.loss);
    EXPECT_DOUBLE_EQ(a.mean(), a.loss / double(a.targets));
  };
  same(result.total, brute_force(sequences, losses, [](const PackedSequence&, std::size_t) { return true; }));
  ASSERT_EQ(result.by_role.size(), 6u);
  for (int role = 0; role < 6; ++role) {
    EXPECT_EQ(result.by_role[std::size_t(role)].role, Role(role));
    same(result.by_role[std::size_t(role)], brute_force(sequences, losses, [&](const PackedSequence& s, std::size_t i) { return s.roles[i] == role; }));
  }
  const std::pair<int, int> buckets[] = {{0, 64}, {64, 128}, {128, 256}, {256, 300}};
  ASSERT_EQ(result.by_position.size(), 4u);
  for (std::size_t b = 0; b < 4; ++b) {
    const auto [begin, end] = buckets[b];
    EXPECT_EQ(result.by_position[b].begin, begin);
    EXPECT_EQ(result.by_position[b].end, end);
    same(result.by_position[b], brute_force(sequences, losses, [&, begin = begin, end = end](const PackedSequence& s, std::size_t i) {
           return s.positions[i] >= begin && s.positions[i] < end;
         }));
  }
}

TEST(LossTable, EmptyPartsAreLeftOut) {
  std::mt19937 random(4);
  LossTable table(1024);
  EXPECT_TRUE(table.result().by_role.empty());
  EXPECT_TRUE(table.result().by_position.empty());
  const PackedSequence sequence = random_sequence(random, false);
  std::vector<float> losses(std::size_t(kLength), 2.0f);
  table.add(sequence, Tensor(losses.data(), DType::f32, {kLength}));
  const ValidationResult result = table.result();
  EXPECT_TRUE(result.by_role.empty());  // no role is known
  for (const PositionLoss& part : result.by_position) EXPECT_LT(part.begin, kLength);
  EXPECT_EQ(result.total.mean(), 2.0);
}

TEST(LossTable, BucketsEndWithTheSequence) {
  for (const auto& [length, count, last_begin] : {std::tuple{64, 1, 0}, {65, 2, 64}, {128, 2, 64}, {129, 3, 128}, {131072, 12, 65536}}) {
    LossTable table(length);
    PackedSequence all;
    for (int i = 0; i < length; ++i) all.targets.push_back(1), all.positions.push_back(i), all.roles.push_back(0);
    std::vector<float> losses(std::size_t(length), 1.0f);
    table.add(all, Tensor(losses.data(), DType::f32, {length}));
    const ValidationResult result = table.result();
    ASSERT_EQ(result.by_position.size(), std::size_t(count)) << length;
    EXPECT_EQ(result.by_position.back().begin, last_begin);
    EXPECT_EQ(result.by_position.back().end, length);
    for (const PositionLoss& part : result.by_position) EXPECT_EQ(part.targets, part.end - part.begin);
  }
}

TEST(ValidationReport, EventAndLogLine) {
  ValidationResult result;
  result.name = "held";
  result.sequences = 3;
  result.total = {6, 4};
  RoleLoss thought;
  thought.loss = 1, thought.targets = 2, thought.role = Role::thought;
  result.by_role = {thought};
  PositionLoss near, far;
  near.loss = 2, near.targets = 1, near.end = 64;
  far.loss = 4, far.targets = 3, far.begin = 64, far.end = 128;
  result.by_position = {near, far};
  JsonLine line;
  add_to(line, result);
  const Json json = Json::parse(line.text(), "event");
  const JsonView view(json, "event");
  EXPECT_EQ(view["source"].string(), "held");
  EXPECT_EQ(view["lm_loss"].number(), 1.5);
  EXPECT_EQ(view["targets"].integer(), 4);
  EXPECT_EQ(view["sequences"].integer(), 3);
  EXPECT_EQ(view["by_role"]["thought"]["lm_loss"].number(), 0.5);
  EXPECT_EQ(view["by_role"]["thought"]["targets"].integer(), 2);
  ASSERT_EQ(view["by_position"].size(), 2u);
  EXPECT_EQ(view["by_position"][1]["begin"].integer(), 64);
  EXPECT_EQ(view["by_position"][1]["end"].integer(), 128);
  EXPECT_EQ(view["by_position"][1]["lm_loss"].number(), 4.0 / 3);
  const std::string log = log_line(result, 12);
  for (const char* part : {"validation held at iteration 12 |", "lm loss: 1.500000E+00 |", "thought: 0.5000 |", "positions 64-128: 1.3333 |"})
    EXPECT_NE(log.find(part), std::string::npos) << log;
}

}  // namespace
}  // namespace af
