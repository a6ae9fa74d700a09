#include "parallel/token_dispatcher.h"

#include <numeric>

#include "core/ops/moe.h"

namespace af {
namespace {

std::span<const std::int64_t> numbers(const Tensor& t) { return {t.as<std::int64_t>(), std::size_t(t.numel())}; }

Shape with_rows(const Tensor& x, std::int64_t rows) {
  Shape shape = x.shape;
  shape.dims[0] = rows;
  return shape;
}

}  // namespace

TokenDispatcher::Plan TokenDispatcher::plan(const Context& context, Arena& memory, std::span<const std::int64_t> offsets) const {
  std::int64_t ep = ep_.size(), etp = etp_.size(), local = experts_ / ep;
  Plan p;
  p.send_rows = memory.tensor({ep}, DType::i64);
  p.receive_rows = memory.tensor({ep}, DType::i64);
  p.group_rows = memory.tensor({etp}, DType::i64);
  p.offsets = memory.tensor({local + 1}, DType::i64);

  // Rows of each expert, from every rank of ep; then what each rank of etp will have received. (No scope: `memory` may be the scratch.)
  Tensor own = context.scratch.tensor({experts_}, DType::i64), all = context.scratch.tensor({ep * experts_}, DType::i64);
  for (std::int64_t e = 0; e < experts_; ++e) own.as<std::int64_t>()[e] = offsets[std::size_t(e + 1)] - offsets[std::size_t(e)];
  if (ep == 1) all = own;
  else ep_.all_gather(own, all).wait();
  Tensor received = context.scratch.tensor({ep * local}, DType::i64), counts = context.scratch.tensor({etp * ep * local}, DType::i64);
  for (std::int64_t r = 0; r < ep; ++r) {
    const std::int64_t* theirs = all.as<std::int64_t>() + r * experts_ + ep_.rank() * local;
    std::copy(theirs, theirs + local, received.as<std::int64_t>() + r * local);
    p.receive_rows.as<std::int64_t>()[r] = std::accumulate(theirs, theirs + local, std::int64_t(0));
    p.send_rows.as<std::int64_t>()[r] = offsets[std::size_t((r + 1) * local)] - offsets[std::size_t(r * local)];
  }
  if (etp == 1) counts = received;
  else etp_.all_gather(received, counts).wait();

  // Received: etp rank by etp rank, source by source, expert by expert. Sorted: expert by expert, else in the same order.
  const std::int64_t* n = counts.as<std::int64_t>();
  for (std::int64_t t = 0; t < etp; ++t)
    p.group_rows.as<std::int64_t>()[t] = std::accumulate(n + t * ep * local, n + (t + 1) * ep * local, std::int64_t(0));
  p.rows = std::accumulate(n, n + etp * ep * local, std::int64_t(0));
  p.sorted_from = memory.tensor({p.rows}, DType::i32);
  p.sorted_to = memory.tensor({p.rows}, DType::i32);
  std::int64_t blocks = etp * ep, to = 0;
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

void TokenDispatcher::dispatch(const Context& context, const Plan& plan, const Tensor& rows, const Tensor& out) const {
  Arena::Scope scope(context.scratch);
  std::int64_t own = numbers(plan.group_rows)[std::size_t(etp_.rank())];
  Tensor all = context.scratch.tensor(with_rows(rows, plan.rows), rows.dtype), received = all;
  if (etp_.size() > 1) {  // what this rank receives has its place among what the ranks of etp receive
    std::int64_t before = 0;
    for (int t = 0; t < etp_.rank(); ++t) before += numbers(plan.group_rows)[std::size_t(t)];
    received = all.slice_rows(before, before + own);
  }
  ep_.all_to_all_v(rows, numbers(plan.send_rows), received, numbers(plan.receive_rows)).wait();
  if (etp_.size() > 1) etp_.all_gather_v(received, all, numbers(plan.group_rows)).wait();
  permute_rows(context, all, plan.sorted_from, 1, out);
}

Pending TokenDispatcher::start_combine(const Context& context, Arena& memory, const Plan& plan, const Tensor& x, const Tensor& out) const {
  std::int64_t own = numbers(plan.group_rows)[std::size_t(etp_.rank())];
  Tensor all = memory.tensor(with_rows(x, plan.rows), x.dtype), received = all;
  permute_rows(context, x, plan.sorted_to, 1, all);
  if (etp_.size() > 1) {
    received = memory.tensor(with_rows(x, own), x.dtype);
    etp_.reduce_scatter_v(all, received, numbers(plan.group_rows)).wait();
  }
  return ep_.all_to_all_v(received, numbers(plan.receive_rows), out, numbers(plan.send_rows));
}

void TokenDispatcher::combine(const Context& context, const Plan& plan, const Tensor& x, const Tensor& out) const {
  Arena::Scope scope(context.scratch);
  start_combine(context, context.scratch, plan, x, out).wait();
}

}  // namespace af
