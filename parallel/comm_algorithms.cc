// What each kind of operation sends to whom, and what is done with it: the algorithms of comm_operation.h.
#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "parallel/comm_operation.h"
#include "parallel/comm_reduce.h"

namespace af::comm {
namespace {
constexpr std::int64_t kOwned = 64 << 10;           // bytes that a rank sums at least, in a big group: at 64 ranks on 2 cores 3 ms, not 45
constexpr std::int64_t kSmallGathered = 256 << 10;  // of all parts of an all_gather that goes by rank 0 in a big group
constexpr std::int64_t kPiece = 256 << 10;          // of a sum or broadcast: stays in the second-level cache
constexpr std::int64_t kPieceOfMany = 64 << 10;     // of a sum in a big group
constexpr std::int64_t kStaging = 4 << 20;          // for what arrives of a sum on each rank

void copy(void* to, const void* from, std::int64_t bytes) {
  if (bytes && to != from) std::memmove(to, from, std::size_t(bytes));
}
// Ranks of the subtree of `rank` in a binomial tree over n: rank .. rank + 2^k - 1 with k the trailing zeros of rank.
int subtree(int rank, int n) { return rank == 0 ? n : std::min(1 << std::countr_zero(unsigned(rank)), n - rank); }
}  // namespace

int owners_of_sum(int ranks, std::int64_t bytes) { return ranks < kBigGroup ? ranks : int(std::clamp<std::int64_t>(bytes / kOwned, 1, ranks)); }

void Operation::begin_form() {
  const bool big = group->size() >= kBigGroup;
  switch (header.kind) {
    case CommKind::all_reduce:
    case CommKind::reduce_scatter:
      return begin_reduce();
    case CommKind::all_gather:
      return big && !header.rows_hash && std::int64_t(out.bytes()) <= kSmallGathered ? begin_tree() : begin_exchange();
    case CommKind::barrier:
      return big ? begin_tree() : begin_exchange();
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

// The ranks with parts receive the others' addends into staging, as there is room for them.
void Operation::begin_reduce() {
  form_ = Form::reduce;
  const int n = group->size(), r = group->rank;
  gather_ = header.kind == CommKind::all_reduce;
  int owners = 0;
  for (int i = 0; i < n; ++i) owners += part_bytes(i) > 0;
  slots_ = n < kBigGroup ? Stream::kWindow : 2;
  const std::int64_t staging = kStaging * (n / std::max(owners, 1));  // where few ranks sum, each may take more
  piece_ = std::clamp<std::int64_t>(staging / (slots_ * (n - 1)) / 64 * 64, 8 << 10, n < kBigGroup ? kPiece : kPieceOfMany);
  char* from = static_cast<char*>(x.data);
  own_ = gather_ ? from + send_offset[r] : static_cast<char*>(out.data);
  pieces_ = int((part_bytes(r) + piece_ - 1) / piece_);
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
  slots_ = std::min(pieces_, slots_);
  staging_bytes_ = std::int64_t(slots_) * (n - 1) * std::min(piece_, (part_bytes(r) + 63) / 64 * 64);
}

// Once there is staging.
void Operation::begin_staged() {
  const int n = group->size(), r = group->rank;
  const std::int64_t slot = std::min(piece_, (part_bytes(r) + 63) / 64 * 64);
  sources_.resize(std::size_t(n));
  first_in_ = int(streams_.size());
  for (int i = 1; i < n; ++i) {
    const int peer = (r + n - i) % n;
    const int place = peer < r ? peer : peer - 1;
    Stream& s = add(false, peer, Phase::parts, staging_ + place * slots_ * slot, part_bytes(r), piece_);
    s.slots = s.ready = slots_;
  }
  incoming_ = n - 1;
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

// Up to rank 0 directly: as many messages and bytes as up a tree, but one hop. Down a binomial tree. A barrier is the same, empty.
void Operation::begin_tree() {
  form_ = Form::tree;
  const int n = group->size(), r = group->rank;
  const std::int64_t leaf = header.kind == CommKind::barrier ? 0 : std::int64_t(x.bytes());
  char *from = static_cast<char*>(x.data), *to = static_cast<char*>(out.data);
  if (r == 0) {
    copy(to, from, leaf);
    first_in_ = int(streams_.size()), incoming_ = n - 1;
    for (int i = 1; i < n; ++i) add(false, i, Phase::up, to + i * leaf, leaf);
  } else {
    first_in_ = int(streams_.size()), incoming_ = 1;
    add(true, 0, Phase::up, from, leaf);
    parent_ = int(streams_.size());
    add(false, r - (1 << std::countr_zero(unsigned(r))), Phase::down, to, n * leaf).ready = 0;  // it may take the place of x
  }
  first_down_ = int(streams_.size());
  for (int k = int(std::bit_floor(unsigned(subtree(r, n) - 1))); k > 0; k /= 2) add(true, r + k, Phase::down, to, n * leaf).ready = 0;
}

bool Operation::after_tree() {
  for (int i = 0; i < incoming_; ++i)
    if (!streams_[std::size_t(first_in_ + i)].finished()) return false;
  if (parent_ >= 0 && !streams_[std::size_t(parent_)].finished()) return !std::exchange(streams_[std::size_t(parent_)].ready, 1);
  if (passed_down_) return false;
  for (std::size_t i = std::size_t(first_down_); i < streams_.size(); ++i) streams_[i].ready = 1;
  return passed_down_ = true;
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

}  // namespace af::comm
