// Stops: times, the last safe moment, slow ranks, and going on with another configuration.
#include <gtest/gtest.h>

#include <chrono>

#include "core/error.h"
#include "launch/config_yaml.h"
#include "launch/resume.h"
#include "launch/stop.h"
#include "launch/stragglers.h"

namespace af {
namespace {

TEST(Stop, Durations) {
  EXPECT_EQ(duration_seconds("-t", "90s"), 90);
  EXPECT_EQ(duration_seconds("-t", "90"), 90);
  EXPECT_EQ(duration_seconds("-t", "3h30m"), 12600);
  EXPECT_EQ(duration_seconds("-t", "1d2h3m4s"), 93784);
  for (const char* bad : {"", "0", "0s", "h", "3x", "30m3h", "3h30", "1h1h", "-5s", "5 s", "1.5h", "99999999999999999999s"})
    EXPECT_THROW(duration_seconds("-t", bad), UserError) << bad;
}

TEST(Stop, TheLastSafeMoment) {
  using Clock = TimeLimit::Clock;
  const Clock::time_point now{};
  const auto in = [&](double seconds) { return now + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds)); };
  EXPECT_FALSE(TimeLimit().up(now, TimeLimit::Next::step));
  TimeLimit limit(in(100));
  limit.begin_stage(1000);
  limit.expect_save(4);
  limit.stepped(10);
  const double step_and_save = 1.5 * (10 + 4) + TimeLimit::kMargin, save = 1.5 * 4 + TimeLimit::kMargin;
  EXPECT_FALSE(limit.up(in(100 - step_and_save - 0.01), TimeLimit::Next::step));
  EXPECT_TRUE(limit.up(in(100 - step_and_save + 0.01), TimeLimit::Next::step));
  EXPECT_FALSE(limit.up(in(100 - save - 0.01), TimeLimit::Next::moment));
  EXPECT_TRUE(limit.up(in(100 - save + 0.01), TimeLimit::Next::moment));

  limit.stepped(1);  // a long step is not forgotten at once
  EXPECT_TRUE(limit.up(in(100 - 1.5 * (8.9 + 4) - TimeLimit::kMargin), TimeLimit::Next::step));
  for (int i = 0; i < 100; ++i) limit.stepped(1);
  limit.saved(7);
  limit.saved(2);      // the longest counts,
  limit.expect_save(30);  // and what has been measured
  limit.begin_stage(3000);
  const double both = 1.5 * (3 * 1 + 7) + TimeLimit::kMargin;
  EXPECT_FALSE(limit.up(in(100 - both - 0.01), TimeLimit::Next::step));
  EXPECT_TRUE(limit.up(in(100 - both + 0.01), TimeLimit::Next::step));
}

TEST(Stragglers, AreComparedWithTheirStage) {
  MeshShape shape;
  shape.dp = 3, shape.pp = 2;
  Stragglers alone{Comm()};
  alone.begin({});
  const double one[] = {1};
  for (int i = 0; i < 3 * Stragglers::kSteps; ++i) EXPECT_TRUE(alone.add(one).empty());

  Stragglers stragglers(std::vector<std::string>{"a", "a", "b", "b", "c", "c"});
  stragglers.begin(shape);
  auto steps = [&](std::vector<double> seconds) {
    std::vector<Straggler> found;
    for (int i = 0; i < Stragglers::kSteps; ++i) {
      found = stragglers.add(seconds);
      EXPECT_TRUE(found.empty() || i + 1 == Stragglers::kSteps);
    }
    return found;
  };
  EXPECT_TRUE(steps({1, 1.4, 1, 5, 5, 6}).empty());  // the second stage has more work
  std::vector<Straggler> found = steps({1, 1, 1, 5, 9, 5});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].rank, 4);
  EXPECT_EQ(found[0].host, "c");
  EXPECT_NEAR(found[0].seconds, 9, 1e-12);
  EXPECT_NEAR(found[0].median, 5, 1e-12);
  found = steps({1.6, 1, 1, 5, 9, 5});  // rank 4 is known; rank 0 is new
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].rank, 0);
  EXPECT_TRUE(steps({1, 1, 1, 5, 5, 5}).empty());
  EXPECT_EQ(steps({1, 1, 1, 5, 9, 5}).size(), 1u);  // again
}

const char* const kRun = R"(output_dir: run
model: {preset: tiny_moe}
stages:
  - name: one
    seq_length: 64
    train_tokens: 64000
    global_batch_size: 10
    lr: {lr: 1e-3}
    data: [{path: a.h5}, {path: b.h5}]
)";

TEST(Resume, ChangesAreListed) {
  const Config was = parse_config(kRun, "run.yaml", {});
  EXPECT_TRUE(changes(was, was).empty());
  const Config now = parse_config(kRun, "run.yaml", {"stages.0.lr.lr=2e-3", "stages.0.data.1.weight=3", "stages.0.lr.lr_warmup_iters=2"});
  const std::vector<ConfigChange> found = changes(was, now);
  ASSERT_EQ(found.size(), 3u);
  const auto of = [&](const std::string& key) {
    for (const ConfigChange& change : found)
      if (change.key == key) return change.was + " -> " + change.now;
    return std::string("not there");
  };
  EXPECT_EQ(of("stages.0.lr.lr"), "0.001 -> 0.002");
  EXPECT_EQ(of("stages.0.data.1.weight"), "1 -> 3");
  EXPECT_EQ(of("stages.0.lr.lr_warmup_iters"), " -> 2");
  EXPECT_EQ(changes(now, was).size(), 3u);
}

TEST(Resume, ProgressInTheUnitOfTheLength) {
  const auto stage = [](std::vector<std::string> overrides) { return parse_config(kRun, "run.yaml", overrides).stages[0]; };
  const StageConfig was = stage({}), twice = stage({"stages.0.global_batch_size=20"}), thrice = stage({"stages.0.global_batch_size=30"});
  EXPECT_EQ(same_progress(was, was, 7), 7);
  EXPECT_EQ(same_progress(was, twice, 8), 4);
  EXPECT_EQ(same_progress(twice, was, 4), 8);
  EXPECT_EQ(same_progress(was, thrice, 8), 2);  // never fewer tokens than asked for
  EXPECT_EQ(same_progress(was, stage({"stages.0.seq_length=128"}), 8), 4);
  const std::vector<std::string> iters = {"stages.0.train_tokens=null", "stages.0.train_iters=100", "stages.0.global_batch_size=20"};
  EXPECT_EQ(same_progress(was, stage(iters), 8), 8);
  EXPECT_FALSE(is_longer(was, was) || is_longer(was, twice) || is_longer(twice, was) || is_longer(was, thrice) || is_longer(thrice, was));
  const std::string length = "stages.0.train_tokens=" + std::to_string(was.length.amount + was.tokens_per_iteration());
  EXPECT_TRUE(is_longer(was, stage({length})));
  EXPECT_FALSE(is_longer(stage({length}), was));
  EXPECT_FALSE(is_longer(was, stage({length, "stages.0.global_batch_size=20"})));  // not by a whole one of its own
}

}  // namespace
}  // namespace af
