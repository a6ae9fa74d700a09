#include "parallel/token_dispatcher.h"

#include <algorithm>
#include <numeric>

#include "core/ops/elementwise.h"
#include "core/ops/moe.h"

namespace af {
namespace {

std::span<const std::int64_t> numbers(const Tensor& t) { return {t.as<std::int64_t>(), std::size_t(t.numel())}; }

Shape with_rows(const Tensor& x, std::int64_t rows) {
  Shape shape = x.shape;
  shape.dims[0] = rows;
  return shape;
}

// Which rows of a block of `size` go in round `index` of `rounds`: size / rounds in each, and one more in size % rounds of them, from
// round `before` % rounds on by turns, where `before` rows are in the blocks before it.
Range part_in_round(std::int64_t size, std::int64_t before, std::int64_t rounds, std::int64_t index) {
  std::int64_t first = before % rounds, odd = size % rounds, last = std::min(first + odd, rounds), around = first + odd - last;
  auto begin = [&](std::int64_t i) { return size / rounds * i + std::clamp(i, first, last) - first + std::min(i, around); };
  return {begin(index), begin(index + 1)};
}

}  // namespace

TokenDispatcher::Plan TokenDispatcher::plan(const Context&, Arena& memory, std::span<const std::int64_t> offsets, std::int64_t most) const {
  std::int64_t ep = ep_.size(), etp = etp_.size(), local = local_experts(), own = ep * local + ep;
  Plan p;
  p.sent = memory.tensor({ep, experts_}, DType::i64);
  p.received = memory.tensor({etp, own}, DType::i64);
  p.before = memory.tensor({ep}, DType::i64);

  // Rows of each expert, from every rank of ep; then what each rank of etp will have received.
  Tensor sent = p.sent.slice_rows(ep_.rank(), ep_.rank() + 1), received = p.received.slice_rows(etp_.rank(), etp_.rank() + 1);
  for (std::int64_t e = 0; e < experts_; ++e) sent.as<std::int64_t>()[e] = offsets[std::size_t(e + 1)] - offsets[std::size_t(e)];
  if (ep > 1) ep_.all_gather(sent, p.sent).wait();
  std::int64_t *blocks = received.as<std::int64_t>(), *totals = blocks + ep * local;
  std::fill(totals, totals + ep, 0);
  for (std::int64_t r = 0; r < ep; ++r) {
    const std::int64_t* theirs = p.sent.as<std::int64_t>() + r * experts_;
    std::copy(theirs + ep_.rank() * local, theirs + (ep_.rank() + 1) * local, blocks + r * local);
    for (std::int64_t e = 0; e < experts_; ++e) totals[e / local] += theirs[e];
  }
  if (etp > 1) etp_.all_gather(received, p.received).wait();

  for (std::int64_t r = 0; r < ep; ++r) {
    std::int64_t rows = 0;
    for (std::int64_t t = 0; t < etp; ++t) {
      if (t == etp_.rank()) p.before.as<std::int64_t>()[r] = rows;
      rows += p.received.as<std::int64_t>()[t * own + ep * local + r];
    }
    if (most > 0) p.rounds = std::max(p.rounds, (rows + most - 1) / most);
  }
  return p;
}

// This rank's rows for `expert` that go in round `index`; `before`: rows for the expert's rank before these, and then with them.
Range TokenDispatcher::own_part(const Plan& plan, std::int64_t expert, std::int64_t& before, std::int64_t index) const {
  std::int64_t local = local_experts(), rank = expert / local;
  const std::int64_t* sent = plan.sent.as<std::int64_t>();
  if (expert % local == 0) {
    before = plan.before.as<std::int64_t>()[rank];
    for (std::int64_t r = 0; r < ep_.rank(); ++r)
      before = std::accumulate(sent + r * experts_ + expert, sent + r * experts_ + expert + local, before);
  }
  std::int64_t size = sent[ep_.rank() * experts_ + expert];
  Range part = part_in_round(size, before, plan.rounds, index);
  before += size;
  return part;
}

void TokenDispatcher::sort_by_round(const Context& context, const Plan& plan, const Tensor& source, const Tensor& position) const {
  if (plan.rounds == 1) return;
  Arena::Scope scope(context.scratch);
  Tensor by_expert = context.scratch.tensor(source.shape, DType::i32);
  copy_integers(context, source, by_expert);
  const std::int32_t* from = by_expert.as<std::int32_t>();
  std::int32_t *to = source.as<std::int32_t>(), *inverse = position.as<std::int32_t>();
  std::int64_t next = 0;
  for (std::int64_t i = 0; i < plan.rounds; ++i) {
    std::int64_t before = 0, first = 0;  // first: the expert's among this rank's rows
    for (std::int64_t e = 0; e < experts_; ++e) {
      Range part = own_part(plan, e, before, i);
      for (std::int64_t j = part.begin; j < part.end; ++j) to[next++] = from[first + j];
      first += plan.sent.as<std::int64_t>()[ep_.rank() * experts_ + e];
    }
  }
  for (std::int64_t j = 0; j < next; ++j) inverse[to[j]] = std::int32_t(j);
}

TokenDispatcher::Round TokenDispatcher::round(const Context& context, Arena& memory, const Plan& plan, std::int64_t index) const {
  std::int64_t ep = ep_.size(), etp = etp_.size(), local = local_experts(), blocks = etp * ep;
  Round p;
  p.send_rows = memory.tensor({ep}, DType::i64);
  p.receive_rows = memory.tensor({ep}, DType::i64);
  p.group_rows = memory.tensor({etp}, DType::i64);
  p.offsets = memory.tensor({local + 1}, DType::i64);
  std::int64_t *send = p.send_rows.as<std::int64_t>(), *receive = p.receive_rows.as<std::int64_t>(), *group = p.group_rows.as<std::int64_t>();
  std::fill(send, send + ep, 0), std::fill(receive, receive + ep, 0), std::fill(group, group + etp, 0);
  std::int64_t before = 0;
  for (std::int64_t e = 0; e < experts_; ++e) {
    Range part = own_part(plan, e, before, index);
    p.sent.begin += part.begin;  // those of the rounds before
    p.sent.end += part.end;
    send[e / local] += part.size();
  }

  // Received: etp rank by etp rank, source by source, expert by expert. Sorted: expert by expert, else in the same order. (No scope:
  // `memory` may be the scratch.)
  std::int64_t* n = context.scratch.tensor({blocks * local}, DType::i64).as<std::int64_t>();
  before = 0;
  for (std::int64_t b = 0; b < blocks; ++b)
    for (std::int64_t e = 0; e < local; ++e) {
      std::int64_t size = plan.received.as<std::int64_t>()[b / ep * (ep * local + ep) + b % ep * local + e];
      n[b * local + e] = part_in_round(size, before, plan.rounds, index).size();
      before += size;
      group[b / ep] += n[b * local + e];
      if (b / ep == etp_.rank()) receive[b % ep] += n[b * local + e];
    }
  p.rows = std::accumulate(group, group + etp, std::int64_t(0));
  p.sorted_from = memory.tensor({p.rows}, DType::i32);
  p.sorted_to = memory.tensor({p.rows}, DType::i32);
  std::int64_t to = 0;
  for (std::int64_t e = 0; e < local; ++e) {
    p.offsets.as<std::int64_t>()[e] = to;
    std::int64_t begin = 0;  // of the block's first expert, among the received
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::int64_t* block = n + b * local;
      std::int64_t from = begin + std::accumulate(block, block + e, std::int64_t(0));
      for (std::int64_t i = 0; i < block[e]; ++i, ++to, ++from) {
        p.sorted_from.as<std::int32_t>()[to] = std::int32_t(from);
        p.sorted_to.as<std::int32_t>()[from] = std::int32_t(to);
      }
      begin += std::accumulate(block, block + local, std::int64_t(0));
    }
  }
  p.offsets.as<std::int64_t>()[local] = to;
  return p;
}

std::size_t TokenDispatcher::round_bytes(std::int64_t rows) const {
  auto line = [](std::int64_t n, DType dtype) { return (std::size_t(std::max<std::int64_t>(n, 1)) * size_of(dtype) + 63) / 64 * 64; };
  return 2 * line(ep_.size(), DType::i64) + line(etp_.size(), DType::i64) + line(local_experts() + 1, DType::i64) + 2 * line(rows, DType::i32);
}

void TokenDispatcher::dispatch(const Context& context, const Round& round, const Tensor& rows, const Tensor& out) const {
  Arena::Scope scope(context.scratch);
  std::int64_t own = numbers(round.group_rows)[std::size_t(etp_.rank())];
  Tensor all = context.scratch.tensor(with_rows(rows, round.rows), rows.dtype), received = all;
  if (etp_.size() > 1) {  // what this rank receives has its place among what the ranks of etp receive
    std::int64_t before = 0;
    for (int t = 0; t < etp_.rank(); ++t) before += numbers(round.group_rows)[std::size_t(t)];
    received = all.slice_rows(before, before + own);
  }
  ep_.all_to_all_v(rows, numbers(round.send_rows), received, numbers(round.receive_rows)).wait();
  if (etp_.size() > 1) etp_.all_gather_v(received, all, numbers(round.group_rows)).wait();
  permute_rows(context, all, round.sorted_from, 1, out);
}

Pending TokenDispatcher::start_combine(const Context& context, Arena& memory, const Round& round, const Tensor& x, const Tensor& out) const {
  std::int64_t own = numbers(round.group_rows)[std::size_t(etp_.rank())];
  Tensor all = memory.tensor(with_rows(x, round.rows), x.dtype), received = all;
  permute_rows(context, x, round.sorted_to, 1, all);
  if (etp_.size() > 1) {
    received = memory.tensor(with_rows(x, own), x.dtype);
    etp_.reduce_scatter_v(all, received, numbers(round.group_rows)).wait();
  }
  return ep_.all_to_all_v(received, numbers(round.receive_rows), out, numbers(round.send_rows));
}

void TokenDispatcher::combine(const Context& context, const Round& round, const Tensor& x, const Tensor& out) const {
  Arena::Scope scope(context.scratch);
  start_combine(context, context.scratch, round, x, out).wait();
}

}  // namespace af
