#include "parallel/comm_operation.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>

#include "parallel/comm_engine.h"
#include "parallel/comm_reduce.h"

namespace af::comm {
namespace {
constexpr int kBigGroup = 9;                        // from here on small operations take the tree
constexpr std::int64_t kSmall = 4096;               // bytes of a small all_reduce or reduce_scatter
constexpr std::int64_t kSmallGathered = 64 << 10;   // bytes of all parts of a small all_gather
constexpr std::int64_t kPiece = 256 << 10;          // of a sum or broadcast: stays in the second-level cache (64 MB: facts of MPI)
constexpr std::int64_t kStaging = 512 << 10;        // bytes of one round of pieces from all ranks
constexpr std::int64_t kMisfitGrace = 200'000'000;  // ns in which a header that says more may arrive

void copy(void* to, const void* from, std::int64_t bytes) {
  if (bytes && to != from) std::memmove(to, from, std::size_t(bytes));
}
int pieces_of(std::int64_t bytes, std::int64_t piece) { return bytes ? int((bytes + piece - 1) / piece) : 1; }
// Ranks of the subtree of `rank` in a binomial tree over n: rank .. rank + 2^k - 1 with k the trailing zeros of rank.
int subtree(int rank, int n) { return rank == 0 ? n : std::min(1 << std::countr_zero(unsigned(rank)), n - rank); }
}  // namespace

std::int64_t now_ns() { return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count(); }

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
  s.pieces = s.ready = pieces_of(bytes, piece);
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
  header_checked_ = !has_header(), finished_ = gather_ = gathered_ = passed_down_ = false;
  misfit_.clear();
  staging_bytes_ = 0, staging_half_ = -1, staging_ = nullptr;
  summed_ = pieces_ = incoming_ = 0;
  up_ = parent_ = -1;
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

void Operation::begin_form() {
  const int n = group->size();
  const std::int64_t all = send_offset[std::size_t(n)];
  switch (header.kind) {
    case CommKind::all_reduce:
    case CommKind::reduce_scatter:
    case CommKind::barrier:
      if (n >= kBigGroup && all <= kSmall) return begin_tree();
      return header.kind == CommKind::barrier ? begin_exchange() : begin_reduce();
    case CommKind::all_gather:
      if (n >= kBigGroup && !header.rows_hash && receive_offset[n] <= kSmallGathered) return begin_tree();
      return begin_exchange();
    case CommKind::broadcast:
      return begin_broadcast();
    default:
      return begin_exchange();
  }
}

// Every rank to every other. Parts that both sides know to be empty are not sent; those of all_to_all_v, of which each side
// knows its own view only, are, so that a disagreement shows.
void Operation::begin_exchange() {
  form_ = Form::exchange;
  const int n = group->size(), r = group->rank;
  const bool always = header.kind == CommKind::all_to_all_v || header.kind == CommKind::barrier;
  const bool same = header.kind == CommKind::all_gather;  // all of x to everyone
  char *from = static_cast<char*>(x.data), *to = static_cast<char*>(out.data);
  auto begin_of = [&](int target) { return same ? 0 : send_offset[target]; };
  auto bytes_to = [&](int target) { return same ? std::int64_t(x.bytes()) : send_offset[target + 1] - send_offset[target]; };
  copy(to + receive_offset[r], from + begin_of(r), bytes_to(r));
  for (int i = 1; i < n; ++i) {
    const int source = (r + n - i) % n, target = (r + i) % n;
    const std::int64_t in = receive_offset[source + 1] - receive_offset[source], leaving = bytes_to(target);
    if (in || always) add(false, source, Phase::parts, to + receive_offset[source], in);
    if (leaving || always) add(true, target, Phase::parts, from + begin_of(target), leaving);
  }
}

void Operation::begin_reduce() {
  form_ = Form::reduce;
  const int n = group->size(), r = group->rank;
  gather_ = header.kind == CommKind::all_reduce;
  piece_ = std::clamp<std::int64_t>(kStaging / (n - 1) / 64 * 64, 4096, kPiece);
  char* from = static_cast<char*>(x.data);
  own_ = gather_ ? from + send_offset[r] : static_cast<char*>(out.data);
  pieces_ = part_bytes(r) ? pieces_of(part_bytes(r), piece_) : 0;
  first_out_ = int(streams_.size());
  for (int i = 1; i < n; ++i) {
    const int peer = (r + i) % n;
    if (part_bytes(peer)) add(true, peer, Phase::parts, from + send_offset[peer], part_bytes(peer), piece_);
  }
  first_gather_ = int(streams_.size());
  if (gather_)  // a piece is received where the peer's own addend stood, once that has left
    for (int i = 1; i < n; ++i) {
      const int peer = (r + i) % n;
      if (part_bytes(peer)) add(false, peer, Phase::results, from + send_offset[peer], part_bytes(peer), piece_).ready = 0;
    }
  first_down_ = int(streams_.size());
  if (gather_ && pieces_)
    for (int i = 1; i < n; ++i) add(true, (r + i) % n, Phase::results, own_, part_bytes(r), piece_).ready = 0;
  first_in_ = int(streams_.size());
  if (pieces_) staging_bytes_ = std::min<std::int64_t>(pieces_, Stream::kWindow) * (n - 1) * std::min(piece_, (part_bytes(r) + 63) / 64 * 64);
}

// A tree over the ranks with root 0: the children of r are r + 1, r + 2, r + 4, ... below the lowest bit of r.
void Operation::begin_tree() {
  form_ = Form::tree;
  const int n = group->size(), r = group->rank;
  leaf_bytes_ = header.kind == CommKind::all_gather ? std::int64_t(x.bytes()) : send_offset[n];
  result_bytes_ = header.kind == CommKind::all_gather ? n * leaf_bytes_ : leaf_bytes_;
  staging_bytes_ = subtree(r, n) * leaf_bytes_ + (header.kind == CommKind::reduce_scatter ? result_bytes_ : 0);
  if (!staging_bytes_) begin_staged();
}

void Operation::begin_broadcast() {
  form_ = Form::broadcast;
  const int n = group->size(), root = header.root, v = (group->rank + n - root) % n;
  char* data = static_cast<char*>(x.data);
  const std::int64_t bytes = std::int64_t(x.bytes());
  if (!bytes) return;
  if (v) {
    parent_ = int(streams_.size());
    add(false, (v - (1 << std::countr_zero(unsigned(v))) + root) % n, Phase::down, data, bytes, kPiece);
  }
  first_down_ = int(streams_.size());
  for (int k = std::bit_floor(unsigned(subtree(v, n) - 1)); k > 0; k /= 2) {
    Stream& s = add(true, (v + k + root) % n, Phase::down, data, bytes, kPiece);
    if (v) s.ready = 0;
  }
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

void Operation::begin_staged() {
  const int n = group->size(), r = group->rank;
  if (form_ == Form::reduce) {
    const int slots = std::min(pieces_, Stream::kWindow);
    const std::int64_t slot = std::min(piece_, (part_bytes(r) + 63) / 64 * 64);
    sources_.resize(std::size_t(n));
    first_in_ = int(streams_.size());
    for (int i = 1; i < n; ++i) {
      const int peer = (r + n - i) % n;
      const int place = peer < r ? peer : peer - 1;
      Stream& s = add(false, peer, Phase::parts, staging_ + place * slots * slot, part_bytes(r), piece_);
      s.slots = slots, s.ready = slots;
    }
    incoming_ = n - 1;
    return;
  }
  const int own = subtree(r, n);
  copy(staging_, x.data, leaf_bytes_);
  result_ = header.kind == CommKind::all_gather       ? static_cast<char*>(out.data)
            : header.kind == CommKind::reduce_scatter ? staging_ + own * leaf_bytes_
                                                      : static_cast<char*>(x.data);
  first_in_ = int(streams_.size());
  for (int k = 1; k < own; k *= 2)
    add(false, r + k, Phase::up, staging_ ? staging_ + k * leaf_bytes_ : nullptr, std::min(k, own - k) * leaf_bytes_), ++incoming_;
  if (r) {
    const int above = r - (1 << std::countr_zero(unsigned(r)));
    up_ = int(streams_.size());
    add(true, above, Phase::up, staging_, own * leaf_bytes_).ready = 0;
    parent_ = int(streams_.size());
    add(false, above, Phase::down, result_, result_bytes_);
  }
  first_down_ = int(streams_.size());
  for (int k = int(std::bit_floor(unsigned(own - 1))); k > 0; k /= 2) add(true, r + k, Phase::down, result_, result_bytes_).ready = 0;
}

bool Operation::advance(Stream& s) {
  bool moved = false;
  while (s.done < s.posted && s.requests[s.done % Stream::kWindow].done) {
    const Request& request = s.requests[s.done++ % Stream::kWindow];
    moved = true;
    if (!s.send && request.received != request.bytes && misfit_.empty()) {
      misfit_ = fmt::format("{}: rank {} sent {} bytes to rank {}, which expects {}", header.str(), group->members[std::size_t(s.peer)],
                            request.received, group->members[std::size_t(group->rank)], request.bytes);
      misfit_since_ = now_ns();
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
  for (bool again = true; again;) {
    again = false;
    for (std::size_t i = 0; i < streams_.size(); ++i) again |= advance(streams_[i]);
    if (form_ == Form::reduce) again |= after_reduce();
    if (form_ == Form::tree) again |= after_tree();
    if (form_ == Form::broadcast) again |= after_broadcast();
    moved |= again;
  }
  if (!header_checked_ && streams_[1].finished()) check_header();
  if (!misfit_.empty()) {  // the next rank may know better what is wrong
    if (now_ns() - misfit_since_ > kMisfitGrace) throw InternalError(misfit_);
    return moved;
  }
  if (staging_bytes_ && staging_half_ < 0) return moved;
  finished_ = header_checked_ && std::all_of(streams_.begin(), streams_.end(), [](const Stream& s) { return s.finished(); }) &&
              (form_ != Form::reduce || summed_ == pieces_);
  return moved;
}

bool Operation::after_reduce() {
  bool moved = false;
  const int n = group->size(), r = group->rank;
  while (incoming_ && summed_ < pieces_) {
    bool arrived = true;
    for (int i = 0; i < incoming_; ++i) arrived &= streams_[std::size_t(first_in_ + i)].done > summed_;
    if (!arrived) break;
    const std::int64_t offset = summed_ * piece_, size = std::min(piece_, part_bytes(r) - offset);
    for (int i = 0; i < incoming_; ++i) {
      const Stream& s = streams_[std::size_t(first_in_ + i)];
      sources_[std::size_t(s.peer)] = s.data + summed_ % s.slots * std::min(s.piece, (s.bytes + 63) / 64 * 64);
    }
    sources_[std::size_t(r)] = static_cast<char*>(x.data) + send_offset[std::size_t(r)] + offset;
    reduce(header.dtype, header.reduction, {sources_.data(), std::size_t(n)}, own_ + offset, size / std::int64_t(size_of(header.dtype)));
    ++summed_;
    for (int i = 0; i < incoming_; ++i) ++streams_[std::size_t(first_in_ + i)].ready;
    for (int i = first_down_; i < first_in_; ++i) streams_[std::size_t(i)].ready = summed_;
    moved = true;
  }
  for (int i = 0; i < first_down_ - first_gather_; ++i) {  // results may take the place of what has been sent
    const int sent = streams_[std::size_t(first_out_ + i)].done;
    Stream& s = streams_[std::size_t(first_gather_ + i)];
    if (s.ready < sent) s.ready = sent, moved = true;
  }
  return moved;
}

bool Operation::after_tree() {
  if (staging_bytes_ && staging_half_ < 0) return false;
  const int n = group->size(), r = group->rank;
  bool moved = false;
  bool below = true;
  for (int i = 0; i < incoming_; ++i) below &= streams_[std::size_t(first_in_ + i)].finished();
  if (below && !gathered_) {
    gathered_ = moved = true;
    if (r) {
      streams_[std::size_t(up_)].ready = 1;
    } else if (header.kind == CommKind::all_gather) {
      copy(result_, staging_, result_bytes_);
    } else if (leaf_bytes_) {
      sources_.resize(std::size_t(n));
      for (int i = 0; i < n; ++i) sources_[std::size_t(i)] = staging_ + i * leaf_bytes_;
      reduce(header.dtype, header.reduction, sources_, result_, leaf_bytes_ / std::int64_t(size_of(header.dtype)));
    }
  }
  if (gathered_ && !passed_down_ && (r == 0 || streams_[std::size_t(parent_)].finished())) {
    passed_down_ = moved = true;  // the result is here: pass it on
    for (std::size_t i = std::size_t(first_down_); i < streams_.size(); ++i) streams_[i].ready = 1;
    if (header.kind == CommKind::reduce_scatter) copy(out.data, result_ + send_offset[std::size_t(r)], part_bytes(r));
  }
  return moved;
}

bool Operation::after_broadcast() {
  if (parent_ < 0) return false;
  bool moved = false;
  for (std::size_t i = std::size_t(first_down_); i < streams_.size(); ++i) {
    Stream& s = streams_[i];
    const int arrived = streams_[std::size_t(parent_)].done;
    if (s.ready < arrived) s.ready = arrived, moved = true;
  }
  return moved;
}

std::vector<int> Operation::missing() const {
  std::vector<int> ranks;
  for (const bool later : {false, true}) {  // results may be late for a third rank's sake: where nothing else is
    for (const Stream& s : streams_) {
      const int world = group->members[std::size_t(s.peer)];
      const bool waits = s.posted > s.done && s.done == 0 && (!s.send || !has_header());
      if (waits && later == (s.phase == Phase::results || s.phase == Phase::down) && std::find(ranks.begin(), ranks.end(), world) == ranks.end())
        ranks.push_back(world);
    }
    if (!ranks.empty()) break;
  }
  return ranks;
}

}  // namespace af::comm
