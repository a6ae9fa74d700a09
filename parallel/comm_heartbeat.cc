#include "parallel/comm_heartbeat.h"

#include <algorithm>
#include <utility>

#include "parallel/comm_tag.h"

namespace af::comm {
namespace {
constexpr std::int64_t kMostBetween = 1'000'000'000;  // ns between two signs of life
}

Heartbeat::Heartbeat(Transport& transport, double seconds, std::int64_t now, bool silent)
    : transport_(transport), limit_(std::int64_t(seconds * 1e9)), interval_(std::min(kMostBetween, limit_ / 10)),
      sends_(limit_ > 0 && transport.size() > 1 && !silent), watches_(limit_ > 0 && transport.size() > 1), sent_(now - interval_), looked_(now) {
  const int n = transport.size(), r = transport.rank();
  const std::int32_t tag = make_tag(Axis::world, kHeartbeatGroup, 0, Phase::header);
  to_ = {.send = true, .peer = (r + 1) % n, .tag = tag, .data = reinterpret_cast<char*>(&said_), .bytes = sizeof(said_), .done = true};
  last_ = to_, last_.data = reinterpret_cast<char*>(&last_said_);
  from_ = {.peer = (r + n - 1) % n, .tag = tag, .data = reinterpret_cast<char*>(&heard_), .bytes = sizeof(heard_)};
  if (watches_) transport_.start(from_);
}

bool Heartbeat::look(std::int64_t now) {
  // One that the transport still holds is not followed by another: it will arrive, or never.
  if (sends_ && to_.done && now - sent_ >= interval_) {
    sent_ = now, to_.done = false;
    transport_.start(to_);
  }
  if (!watches_) return false;
  silence_ += std::min(now - looked_, kMostPerLook);
  looked_ = now;
  if (from_.done) {
    silence_ = 0;
    watches_ = heard_ != leaving;
    from_.done = false;
    if (watches_) transport_.start(from_);
  }
  return watches_ && silence_ > limit_;
}

void Heartbeat::leave() {
  if (!std::exchange(sends_, false)) return;
  transport_.start(last_);
}

}  // namespace af::comm
