#include "parallel/placement.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "core/random.h"
#include "parallel/data_parallel.h"

namespace af {

Rectangle intersection(const Rectangle& a, const Rectangle& b) {
  const std::int64_t row = std::max(a.row, b.row), row_end = std::min(a.row + a.rows, b.row + b.rows);
  const std::int64_t col = std::max(a.col, b.col), col_end = std::min(a.col + a.cols, b.col + b.cols);
  if (row >= row_end || col >= col_end) return {};
  return {row, row_end - row, col, col_end - col};
}

namespace {

// Elements [begin, end) of a slab's row-major block, the first of them at `offset` of the share.
void add_pieces(const Slab& slab, std::int64_t begin, std::int64_t end, int bucket, std::int64_t offset, std::vector<StatePiece>& out) {
  while (begin < end) {
    const std::int64_t row = begin / slab.cols, col = begin % slab.cols;
    const bool whole_rows = col == 0 && end - begin >= slab.cols;
    const std::int64_t rows = whole_rows ? (end - begin) / slab.cols : 1, cols = whole_rows ? slab.cols : std::min(slab.cols - col, end - begin);
    out.push_back({&slab, {slab.row_begin + row, rows, slab.col_begin + col, cols}, bucket, offset});
    begin += rows * cols;
    offset += rows * cols;
  }
}

}  // namespace

std::vector<StatePiece> pieces_of(const ParameterSet& set, Held held, std::int64_t segment) {
  std::vector<StatePiece> pieces;
  for (const Parameter& p : set.parameters()) {
    const ParameterSet::Share share = set.share_of(p);
    const auto add = [&](std::int64_t range_begin, std::int64_t range_end) {
      for (const Slab& slab : p.slabs) {
        std::int64_t begin = std::max(range_begin, slab.offset);
        const std::int64_t end = std::min(range_end, slab.offset + slab.rows * slab.cols);
        while (begin < end) {
          const std::int64_t offset = share.offset + begin - share.begin, count = std::min(end - begin, segment - offset % segment);
          add_pieces(slab, begin - slab.offset, begin - slab.offset + count, share.bucket, offset, pieces);
          begin += count;
        }
      }
    };
    if (held == Held::all) add(share.begin, share.end);
    else for_each_counted(p, share.begin, share.end, add);
  }
  return pieces;
}

namespace {

// A piece as other ranks see it.
struct RemotePiece {
  std::int64_t tensor;  // hash of its name
  Rectangle where;
  std::int64_t round;   // in which it is sent
};
static_assert(sizeof(RemotePiece) == 6 * sizeof(std::int64_t));

// All ranks' lists, one after the other; rank r's are [begin[r], begin[r + 1]).
struct Lists {
  std::vector<RemotePiece> pieces;
  std::vector<std::int64_t> begin;
};

Lists gather(const Comm& world, const std::vector<RemotePiece>& mine) {
  const std::size_t size = std::size_t(world.size());
  std::vector<std::int64_t> rows(size);
  rows[std::size_t(world.rank())] = std::int64_t(mine.size());
  Tensor all_rows(rows.data(), DType::i64, {std::int64_t(size)});
  world.all_gather(all_rows.slice_rows(world.rank(), world.rank() + 1), all_rows).wait();
  Lists lists;
  lists.begin.push_back(0);
  for (std::int64_t n : rows) lists.begin.push_back(lists.begin.back() + n);
  lists.pieces.resize(std::size_t(lists.begin.back()));
  const auto place = lists.pieces.begin() + lists.begin[std::size_t(world.rank())];
  std::copy(mine.begin(), mine.end(), place);
  Tensor all(lists.pieces.data(), DType::i64, {lists.begin.back(), 6});
  world.all_gather_v(all.slice_rows(lists.begin[std::size_t(world.rank())], lists.begin[std::size_t(world.rank()) + 1]), all, rows).wait();
  return lists;
}

using Index = std::unordered_map<std::int64_t, std::vector<std::int64_t>>;  // tensor -> places in a list, ascending

template <class F>
void for_each_of(const Index& index, std::int64_t tensor, F f) {
  const auto found = index.find(tensor);
  if (found == index.end()) return;
  for (std::int64_t i : found->second) f(i);
}

enum class Copy { out_of_piece, into_piece };
// The part of a piece of `state` between it and dense memory, which is passed over.
void copy(Copy direction, const Tensor& state, const StatePiece& piece, const Rectangle& part, char*& dense) {
  const std::size_t size = size_of(state.dtype), bytes = std::size_t(part.cols) * size;
  for (std::int64_t r = 0; r < part.rows; ++r, dense += bytes) {
    const std::int64_t at = piece.offset + (part.row - piece.where.row + r) * piece.where.cols + part.col - piece.where.col;
    char* held = static_cast<char*>(state.data) + std::size_t(at) * size;
    if (direction == Copy::out_of_piece) std::memcpy(dense, held, bytes);
    else std::memcpy(held, dense, bytes);
  }
}

constexpr OptimizerState kStates[] = {OptimizerState::master, OptimizerState::exp_avg, OptimizerState::exp_avg_sq};

// The state's way in rounds: in each, every rank sends one segment of one of its old buckets, all three states of it. Both ends
// of a message know its order: the sender's pieces, for each the receiver's pieces that it meets.
class Move {
 public:
  Move(const Comm& world, const ParameterSet& old_set, Optimizer& old_optimizer, const ParameterSet& set, Optimizer& optimizer, std::int64_t segment)
      : world_(world), old_(old_optimizer), new_(optimizer), dtype_(accumulator_of(set.dtype())), sent_(pieces_of(old_set, Held::counted, segment)),
        received_(pieces_of(set, Held::all)) {
    std::int64_t rounds = 0;
    std::vector<std::int64_t> first_round;
    for (const Bucket& bucket : old_set.buckets()) {
      first_round.push_back(rounds);
      rounds += (bucket.share_numel() + segment - 1) / segment;
    }
    first_round.push_back(rounds);
    last_rounds_.assign(first_round.begin() + 1, first_round.end());
    std::vector<RemotePiece> mine;
    for (const StatePiece& p : sent_) mine.push_back({std::int64_t(hash_name(p.slab->name)), p.where, first_round[std::size_t(p.bucket)] + p.offset / segment});
    senders_ = gather(world, mine);
    mine.clear();
    for (const StatePiece& p : received_) mine.push_back({std::int64_t(hash_name(p.slab->name)), p.where, 0});
    receivers_ = gather(world, mine);
    for (std::size_t i = 0; i < receivers_.pieces.size(); ++i) receivers_of_[receivers_.pieces[i].tensor].push_back(std::int64_t(i));
    for (std::size_t i = 0; i < mine.size(); ++i) mine_of_[mine[i].tensor].push_back(std::int64_t(i));
    for (std::size_t i = 0; i < senders_.pieces.size(); ++i) {
      const std::size_t round = std::size_t(senders_.pieces[i].round);
      if (by_round_.size() <= round) by_round_.resize(round + 1);
      by_round_[round].push_back(std::int64_t(i));
    }
  }

  void run() {
    for (std::size_t round = 0; round < by_round_.size(); ++round) {
      exchange(round);
      for (std::size_t b = 0; b < last_rounds_.size(); ++b)
        if (last_rounds_[b] == std::int64_t(round) + 1) old_.release(int(b));
    }
    for (std::size_t b = 0; b < last_rounds_.size(); ++b) old_.release(int(b));  // those whose end is padding
    std::int64_t expected = 0;
    for (const StatePiece& p : received_) expected += p.where.numel();
    AF_CHECK(arrived_ == expected, "{} of {} elements of the state arrived: the two layouts are not of one model", arrived_, expected);
  }

 private:
  int sender_of(std::int64_t i) const { return int(std::upper_bound(senders_.begin.begin(), senders_.begin.end(), i) - senders_.begin.begin()) - 1; }
  int receiver_of(std::int64_t i) const { return int(std::upper_bound(receivers_.begin.begin(), receivers_.begin.end(), i) - receivers_.begin.begin()) - 1; }

  void exchange(std::size_t round) {
    struct Part {
      int rank;
      const StatePiece* piece;
      Rectangle where;
    };
    std::vector<Part> out, in;
    for (std::int64_t i : by_round_[round]) {
      const RemotePiece& sent = senders_.pieces[std::size_t(i)];
      const int sender = sender_of(i);
      if (sender == world_.rank()) {
        for_each_of(receivers_of_, sent.tensor, [&](std::int64_t r) {
          const Rectangle part = intersection(sent.where, receivers_.pieces[std::size_t(r)].where);
          if (part.numel()) out.push_back({receiver_of(r), &sent_[std::size_t(i - senders_.begin[std::size_t(sender)])], part});
        });
      }
      for_each_of(mine_of_, sent.tensor, [&](std::int64_t r) {
        const Rectangle part = intersection(sent.where, received_[std::size_t(r)].where);
        if (part.numel()) in.push_back({sender, &received_[std::size_t(r)], part});
      });
    }
    std::stable_sort(out.begin(), out.end(), [](const Part& a, const Part& b) { return a.rank < b.rank; });
    std::vector<std::int64_t> out_rows(std::size_t(world_.size())), in_rows(out_rows.size());
    std::int64_t out_total = 0, in_total = 0;
    for (const Part& part : out) out_rows[std::size_t(part.rank)] += 3 * part.where.numel(), out_total += 3 * part.where.numel();
    for (const Part& part : in) in_rows[std::size_t(part.rank)] += 3 * part.where.numel(), in_total += 3 * part.where.numel();
    out_.resize(std::max(out_.size(), std::size_t(out_total) * size_of(dtype_)));
    in_.resize(std::max(in_.size(), std::size_t(in_total) * size_of(dtype_)));
    char* at = out_.data();
    for (const Part& part : out)
      for (OptimizerState state : kStates) copy(Copy::out_of_piece, old_.state(state, part.piece->bucket), *part.piece, part.where, at);
    world_.all_to_all_v(Tensor(out_.data(), dtype_, {out_total}), out_rows, Tensor(in_.data(), dtype_, {in_total}), in_rows).wait();
    at = in_.data();
    for (const Part& part : in) {
      if (!new_.allocated(part.piece->bucket)) new_.allocate(part.piece->bucket);
      for (OptimizerState state : kStates) copy(Copy::into_piece, new_.state(state, part.piece->bucket), *part.piece, part.where, at);
      arrived_ += part.where.numel();
    }
  }

  const Comm& world_;
  Optimizer &old_, &new_;
  DType dtype_;
  std::vector<StatePiece> sent_, received_;  // of this rank
  std::vector<std::int64_t> last_rounds_;  // by old bucket of this rank: one past its last round
  Lists senders_, receivers_;
  Index receivers_of_, mine_of_;        // into receivers_.pieces, received_
  std::vector<std::vector<std::int64_t>> by_round_;  // into senders_.pieces
  std::vector<char> out_, in_;
  std::int64_t arrived_ = 0;
};

}  // namespace

void redistribute(const Context& context, ParameterSet& old_set, Optimizer& old_optimizer, const Mesh& mesh, ParameterSet& set, Optimizer& optimizer,
                  std::int64_t segment) {
  AF_CHECK(old_set.dtype() == set.dtype(), "a state of {} cannot become one of {}", name_of(old_set.dtype()), name_of(set.dtype()));
  old_set.release_gradients();
  if (old_set.dtype() != accumulator_of(old_set.dtype())) old_set.release_values();
  Move(mesh.world, old_set, old_optimizer, set, optimizer, segment).run();
  for (int b = 0; b < int(set.buckets().size()); ++b)
    if (!optimizer.allocated(b)) optimizer.allocate(b);
  old_set.release_values();
  optimizer.set_steps(old_optimizer.steps());
  optimizer.values_from_master(context);
  ParameterGatherer(mesh, set, false).start();
  set.allocate_gradients();
}

}  // namespace af
