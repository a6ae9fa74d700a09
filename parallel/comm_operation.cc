#include "parallel/comm_operation.h"

#include <algorithm>
#include <chrono>

#include "parallel/comm_engine.h"

namespace af::comm {
namespace {
constexpr std::int64_t kMisfitGrace = 200'000'000;  // ns in which a header that says more may arrive
}

std::int64_t now_ns() { return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count(); }

std::int64_t steady_ns() { return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string Header::str() const {
  std::string what = fmt::format("{} #{} on axis {}", name_of(kind), sequence, name_of(axis));
  switch (kind) {
    case CommKind::barrier:
      return what;
    case CommKind::all_reduce:
    case CommKind::reduce_scatter:
      return fmt::format("{} ({} of {} {}{})", what, reduction == Reduction::sum ? "sum" : "max", elements, name_of(dtype),
                         rows_hash ? fmt::format(", rows with hash {:x}", rows_hash) : "");
    case CommKind::broadcast:
      return fmt::format("{} ({} {} from rank {} of the group)", what, elements, name_of(dtype), root);
    case CommKind::all_to_all_v:
      return fmt::format("{} (rows of {} {})", what, elements, name_of(dtype));
    case CommKind::all_gather:
      return fmt::format("{} ({} {}{})", what, elements, name_of(dtype), rows_hash ? fmt::format(" a row, rows with hash {:x}", rows_hash) : "");
    default:
      return fmt::format("{} ({} {})", what, elements, name_of(dtype));
  }
}

Stream& Operation::add(bool send, int peer, Phase phase, char* data, std::int64_t bytes, std::int64_t piece) {
  Stream& s = streams_.emplace_back();
  s.send = send, s.peer = peer, s.phase = phase, s.data = data, s.bytes = bytes, s.piece = piece;
  s.pieces = s.ready = bytes ? int((bytes + piece - 1) / piece) : 1;
  return s;
}

void Operation::reserve() {
  const std::size_t n = group->members.size();
  streams_.reserve(4 * n + 2);  // and requests stay where they are
  sources_.reserve(n);
  send_offset.reserve(n + 1), receive_offset.reserve(n + 1);
}

void Operation::begin() {
  const int n = group->size(), r = group->rank;
  streams_.clear();
  header_checked_ = !has_header(), finished_ = gather_ = passed_down_ = false;
  misfit_.clear();
  staging_bytes_ = 0, staging_half_ = -1, staging_ = nullptr;
  summed_ = pieces_ = incoming_ = 0;
  parent_ = -1;
  if (!has_header()) {
    form_ = Form::exchange;
    const bool send = header.kind == CommKind::send;
    AF_CHECK(x.bytes() <= std::size_t(Stream::kWindow) << 30, "{} bytes in one message", x.bytes());
    add(send, header.root, Phase::point_to_point, static_cast<char*>(x.data), std::int64_t(x.bytes()));
    return;
  }
  add(true, (r + 1) % n, Phase::header, reinterpret_cast<char*>(&header), sizeof(Header));
  add(false, (r + n - 1) % n, Phase::header, reinterpret_cast<char*>(&left_), sizeof(Header));
  begin_form();
  if (staging_bytes_) staging_ticket_ = group->staging_asked++;
}

// Two halves of the group's staging, each as large as its largest need so far.
bool Operation::take_staging() {
  Group& g = *group;
  if (staging_ticket_ != g.staging_given) return false;
  const std::size_t need = std::size_t(staging_bytes_ + 63) / 64 * 64;
  if (g.staging.bytes() / 2 < need) {
    if (g.staging_used[0] || g.staging_used[1]) return false;
    g.staging = Buffer();
    g.staging = Buffer(Device{}, 2 * need);
  }
  for (int half : {0, 1})
    if (!g.staging_used[half]) {
      g.staging_used[half] = true;
      staging_half_ = half;
      ++g.staging_given;
      staging_ = static_cast<char*>(g.staging.data()) + std::size_t(half) * (g.staging.bytes() / 128 * 64);
      return true;
    }
  return false;
}

void Operation::release_staging() {
  if (staging_half_ >= 0) group->staging_used[staging_half_] = false;
  staging_half_ = -1;
}

bool Operation::advance(Stream& s) {
  bool moved = false;
  while (s.done < s.posted && s.requests[s.done % Stream::kWindow].done) {
    const Request& request = s.requests[s.done++ % Stream::kWindow];
    moved = true;
    if (!s.send && request.received != request.bytes && misfit_.empty()) {
      misfit_ = fmt::format("{}: rank {} sent {} bytes to rank {}, which expects {}", header.str(), group->members[std::size_t(s.peer)],
                            request.received, group->members[std::size_t(group->rank)], request.bytes);
      misfit_since_ = steady_ns();
    }
  }
  while (s.posted < std::min(s.ready, s.pieces) && s.posted - s.done < Stream::kWindow) {
    const std::int64_t offset = s.posted * s.piece;
    Request& request = s.requests[s.posted % Stream::kWindow];
    request = {.send = s.send,
               .peer = group->members[std::size_t(s.peer)],
               .tag = make_tag(header.axis, group->id, has_header() ? header.sequence : 0, s.phase),
               .data = s.data + (s.slots ? s.posted % s.slots * std::min(s.piece, (s.bytes + 63) / 64 * 64) : offset),
               .bytes = std::size_t(std::min(s.piece, s.bytes - offset)),
               .operation = this};
    if (s.send && s.phase != Phase::header) bytes += std::int64_t(request.bytes);
    ++s.posted;
    moved = true;
    group->engine->start(request);
  }
  return moved;
}

void Operation::check_header() {
  header_checked_ = true;
  if (left_ == header) return;
  const int n = group->size();
  throw InternalError(fmt::format("rank {} is in {}, but rank {} of the same group is in {}", group->members[std::size_t(group->rank)], header.str(),
                                  group->members[std::size_t((group->rank + n - 1) % n)], left_.str()));
}

bool Operation::advance() {
  bool moved = false;
  if (staging_bytes_ && staging_half_ < 0 && take_staging()) begin_staged(), moved = true;
  bool again = true;
  for (int pass = 0; pass < 2 && again; ++pass) {  // no more: other operations want their turn
    again = false;
    for (Stream& stream : streams_) again |= advance(stream);
    if (form_ == Form::reduce) again |= after_reduce();
    if (form_ == Form::tree) again |= after_tree();
    if (form_ == Form::broadcast) again |= after_broadcast();
    moved |= again;
  }
  if (!header_checked_ && streams_[1].finished()) check_header();
  if (!misfit_.empty()) {  // the next rank may know better what is wrong
    if (steady_ns() - misfit_since_ > kMisfitGrace) throw InternalError(misfit_);
    return moved;
  }
  if (staging_bytes_ && staging_half_ < 0) return moved;
  finished_ = header_checked_ && std::all_of(streams_.begin(), streams_.end(), [](const Stream& s) { return s.finished(); }) &&
              (form_ != Form::reduce || summed_ == pieces_);
  return moved;
}

void Operation::missing(std::vector<int>& ranks) const {
  ranks.clear();
  for (const bool later : {false, true}) {  // results may be late for a third rank's sake: where nothing else is
    for (const Stream& s : streams_) {
      const int world = group->members[std::size_t(s.peer)];
      const bool waits = s.posted > s.done && s.done == 0 && (!s.send || !has_header());
      if (waits && later == (s.phase == Phase::results || s.phase == Phase::down) && std::find(ranks.begin(), ranks.end(), world) == ranks.end())
        ranks.push_back(world);
    }
    if (!ranks.empty()) return;
  }
  for (const Stream& s : streams_)  // begun by all, and stuck since
    if (const int world = group->members[std::size_t(s.peer)]; !s.finished() && std::find(ranks.begin(), ranks.end(), world) == ranks.end())
      ranks.push_back(world);
}

}  // namespace af::comm
