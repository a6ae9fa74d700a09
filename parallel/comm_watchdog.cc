// The part of the engine that keeps the flight recorder, and ends the job where an operation takes too long.
#include <unistd.h>

#include <algorithm>

#include "parallel/comm_engine.h"
#include "parallel/comm_guard.h"

namespace af::comm {
namespace {
constexpr std::int64_t kTick = 20'000'000;  // ns between looks at the clock for operations that are late

// Whether a rank's recorder says that it has begun an operation.
bool has_begun(const std::vector<FlightRecord>& records, const Header& h) {
  return std::any_of(records.begin(), records.end(), [&](const FlightRecord& r) {
    return r.group == h.group && r.axis == h.axis && r.sequence >= h.sequence && r.kind != CommKind::send && r.kind != CommKind::receive;
  });
}

}  // namespace

void Engine::record(const Operation& operation, FlightRecord::State state) {
  if (!recorder_) return;
  FlightRecord& r = recorder_->at(operation.number);
  if (state == FlightRecord::State::started && r.number == operation.number && r.state == state) {  // still under way
    operation.missing(missing_);
    r.missing_count = std::int32_t(missing_.size());
    std::copy_n(missing_.begin(), std::min<std::size_t>(missing_.size(), FlightRecord::kMostMissing), r.missing);
    return;
  }
  if (r.number != operation.number && state != FlightRecord::State::started) return;  // the ring has gone round
  const Header& h = operation.header;
  r.state = FlightRecord::State::empty;
  r.number = operation.number, r.sequence = h.sequence, r.begun = operation.begun, r.ended = operation.ended, r.elements = h.elements;
  r.group = h.group, r.group_size = operation.group->size(), r.peer = operation.group->members[std::size_t(h.root)];
  r.kind = h.kind, r.dtype = h.dtype, r.axis = h.axis;
  if (state == FlightRecord::State::started) r.missing_count = 0;
  std::atomic_signal_fence(std::memory_order_seq_cst);  // a killed process leaves what it stored, in this order
  r.state = state;
}

// What the recorders of other ranks on this host, or in a shared directory, say.
std::string Engine::whereabouts(const std::vector<int>& ranks) const {
  std::string text;
  if (options_.recorder_directory.empty()) return text;
  const std::int64_t now = now_ns();
  for (int rank : ranks) {
    const std::vector<FlightRecord> records = read_flight_records(FlightRecorder::path_of(options_.recorder_directory, rank));
    if (records.empty()) {
      text += fmt::format("; {}: no flight record", name_of_rank(rank));
      continue;
    }
    const FlightRecord* last = &records.back();  // or the oldest that it waits in
    for (const FlightRecord& r : records)
      if (r.state == FlightRecord::State::started) {
        last = &r;
        break;
      }
    text += fmt::format("; {} was last in {}", name_of_rank(rank), last->str(now));
  }
  return text;
}

std::string Engine::late_message(const Operation& operation) const {
  std::vector<int> missing;
  operation.missing(missing);
  const Header& h = operation.header;
  if (!options_.recorder_directory.empty() && h.kind != CommKind::send && h.kind != CommKind::receive) {
    std::vector<int> absent;  // exactly, where recorders can be read: what has not come may hang on a third rank
    for (int rank : operation.group->members)
      if (rank != rank_ && !has_begun(read_flight_records(FlightRecorder::path_of(options_.recorder_directory, rank)), h)) absent.push_back(rank);
    if (!absent.empty()) missing = absent;
  }
  std::sort(missing.begin(), missing.end());
  std::string ranks;
  for (int rank : missing) ranks += (ranks.empty() ? "" : ", ") + std::to_string(rank);
  return fmt::format("{} has not ended after {:.4g} s: {} {} did not arrive{}{}", h.str(), double(steady_ns() - operation.started) * 1e-9,
                     missing.size() == 1 ? "rank" : "ranks", ranks.empty() ? "unknown" : ranks, whereabouts(missing), stopped_ranks(getppid()));
}

std::string Engine::name_of_rank(int rank) const {
  const std::string host = transport_->host_of(rank);
  return fmt::format("rank {}{}", rank, host.empty() ? "" : " on " + host);
}

std::string Engine::silence_message() const {
  const int rank = heartbeat_->watched();
  const std::string here = transport_->host_of(rank_), there = transport_->host_of(rank);
  const std::string cause = stopped_ranks(getppid());
  return fmt::format("{} has shown no sign of life for {:.4g} s (heartbeat_seconds){}{}{}", name_of_rank(rank), heartbeat_->silence(), cause,
                     here == there ? "" : fmt::format("; it is stopped, {} is down, or the network from there to {} is", there, here),
                     whereabouts({rank}));
}

// The rank next to one that did not come knows for certain; the others, who wait for something further away, let it speak first.
void Engine::watch() {
  const std::int64_t now = steady_ns();
  if (failure_.empty() && heartbeat_->look(now)) return fail(silence_message());
  if (active_.empty() || now - watched_ < kTick) return;
  watched_ = now;
  const double limit = options_.timeout_seconds, grace = std::clamp(0.1 * limit, 0.2, 5.);
  for (const Operation* operation : active_) {
    if (operation->not_before) continue;
    if (now - operation->started > kTick) record(*operation, FlightRecord::State::started);
    const bool message = operation->header.kind == CommKind::send || operation->header.kind == CommKind::receive;
    if (limit > 0 && double(now - operation->started) * 1e-9 > (message || operation->left_missing() ? limit : limit + grace)) {
      const std::string reason = late_message(*operation);
      fail(reason);
      return;
    }
  }
}

}  // namespace af::comm
