// Signs of life: by a transport and a clock of the test's own, to the look; and between ranks as threads.
#include "parallel/comm_heartbeat.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "parallel/comm_tag.h"
#include "parallel/comm_threads.h"
#include "tests/parallel/comm_cases.h"

namespace af {
namespace {

using comm::Heartbeat;
using comm::Request;
constexpr std::int64_t kSecond = 1'000'000'000, kTenth = kSecond / 10;

// Rank 2 of `size`; the test takes what it sends, and gives it what it receives.
struct FakeTransport : comm::Transport {
  explicit FakeTransport(int ranks) : ranks(ranks) {}
  int rank() const override { return ranks > 2 ? 2 : 0; }
  int size() const override { return ranks; }
  std::string host_of(int) const override { return {}; }
  void start(Request& request) override { (request.send ? sends : receives).push_back(&request); }
  bool progress() override { return false; }
  void idle(bool) override {}
  void wake() override {}
  void withdraw() override {}
  bool failed() const override { return false; }
  std::string failure() const override { return {}; }
  void fail(const std::string&) override {}
  // What has been sent arrives as a message of the rank before.
  void give(const Request& sent) {
    ASSERT_EQ(receives.size(), 1u);
    std::memcpy(receives[0]->data, sent.data, sent.bytes);
    Request* request = receives[0];
    receives.clear();
    request->done = true;
  }
  int ranks;
  std::vector<Request*> sends, receives;
};

TEST(Heartbeat, BeatsOncePerSecondWhateverTheLooks) {
  FakeTransport transport(4);
  Heartbeat heart(transport, 15, 0);
  int sent = 0;
  for (std::int64_t now = 0; now < 10 * kSecond; now += kSecond / 100) {  // a hundred looks a second
    heart.look(now);
    sent += int(transport.sends.size());
    for (Request* request : transport.sends) {
      EXPECT_EQ(request->peer, 3);
      EXPECT_EQ(comm::phase_of(request->tag), comm::Phase::header);  // of which no payload is
      request->done = true;
    }
    transport.sends.clear();
  }
  EXPECT_EQ(sent, 10);
  heart.look(20 * kSecond);
  ASSERT_EQ(transport.sends.size(), 1u);
  for (int i = 0; i < 50; ++i) heart.look(20 * kSecond + i * kSecond);  // the transport still has it
  EXPECT_EQ(transport.sends.size(), 1u);
}

TEST(Heartbeat, SilenceCountsByLooks) {
  FakeTransport transport(4);
  Heartbeat heart(transport, 15, 0);
  EXPECT_EQ(heart.watched(), 1);
  std::int64_t now = 0;
  int looks = 0;
  while (!heart.look(now += kTenth)) ASSERT_LT(++looks, 1000);
  EXPECT_EQ(looks, 150);
  transport.give(*transport.sends[0]);  // late, but it lives
  EXPECT_FALSE(heart.look(now += kTenth));
  EXPECT_EQ(heart.silence(), 0);
  // Looks five seconds apart: this rank gets hardly any time itself, or was stopped. The other one has as many looks to beat.
  for (looks = 0; !heart.look(now += 5 * kSecond); ++looks) ASSERT_LT(looks, 1000);
  EXPECT_EQ(looks, 75);
}

TEST(Heartbeat, ARankThatBeatsNeverStops) {
  FakeTransport transport(4), other(4);
  Heartbeat heart(transport, 15, 0), before(other, 15, 0);
  std::int64_t now = 0;
  for (int i = 0; i < 10000; ++i) {
    EXPECT_FALSE(heart.look(now += kTenth));
    before.look(now);
    if (other.sends.empty()) continue;
    transport.give(*other.sends[0]);
    other.sends[0]->done = true;
    other.sends.clear();
  }
  before.leave();
  before.leave();
  ASSERT_EQ(other.sends.size(), 1u);
  transport.give(*other.sends[0]);
  for (int i = 0; i < 1000; ++i) EXPECT_FALSE(heart.look(now += kTenth)) << "it has left, and is missed";
  EXPECT_TRUE(transport.receives.empty());
  before.look(now + kSecond * 100);
  EXPECT_EQ(other.sends.size(), 1u) << "who has left is silent";
}

TEST(Heartbeat, OffAndAloneItDoesNothing) {
  for (auto [ranks, seconds] : {std::pair(4, 0.), std::pair(1, 15.)}) {
    FakeTransport transport(ranks);
    Heartbeat heart(transport, seconds, 0);
    for (int i = 1; i < 1000; ++i) EXPECT_FALSE(heart.look(i * kSecond));
    heart.leave();
    EXPECT_TRUE(transport.sends.empty() && transport.receives.empty());
  }
}

// Ranks that compute for long, and wait for one that does: nobody is missed, and nothing is counted. Without the heartbeats of a
// rank (a mutant) it is missed, by the next one, although it comes in the end.
std::string on_threads(int silent) {
  ThreadOptions options;
  options.comm.heartbeat_seconds = 0.5;
  if (silent >= 0) options.fault = {.what = CommFault::What::silence, .nth = silent};
  try {
    run_ranks(3, options, [&](const Comm& world) {
      const AxisBytes before = world.bytes();
      std::this_thread::sleep_for(std::chrono::milliseconds(world.rank() == 0 ? 1500 : 700));
      EXPECT_EQ(world.bytes().sent, before.sent);
      world.barrier().wait();
    });
  } catch (const InternalError& error) {
    return error.what();
  }
  return "";
}

TEST(Heartbeat, BetweenThreads) {
  EXPECT_EQ(on_threads(-1), "");
  EXPECT_EQ(on_threads(1).find("rank 2: rank 1 has shown no sign of life for 0.5"), 0u) << on_threads(1);
}

}  // namespace
}  // namespace af
