#include "parallel/lm_head.h"

#include <algorithm>

#include "core/ops/cross_entropy.h"
#include "core/ops/elementwise.h"
#include "core/ops/matmul.h"

namespace af {

std::int64_t LmHead::chunk_tokens(std::int64_t vocab_size, std::int64_t ranks) {
  // 16 Mi logits (64 MiB in fp32): large enough that dW, read and written once per chunk, costs little beside the product.
  return std::clamp<std::int64_t>((std::int64_t(16) << 20) * ranks / vocab_size / 64 * 64, 64, 2048);
}

void LmHead::cross_entropy_of(const Context& context, const Tensor& z, const Tensor& targets, double scale, const Tensor& loss, bool with_gradient) const {
  if (tp_.alone()) return cross_entropy(context, z, targets, loss, scale, with_gradient ? WithGradient::yes : WithGradient::no);
  Arena::Scope scope(context.scratch);
  std::int64_t rows = z.rows(), first_id = weight_->slabs[0].row_begin;
  Tensor stats = context.scratch.tensor({rows, 3}, z.dtype), all = context.scratch.tensor({tp_.comm().size() * rows, 3}, z.dtype);
  Tensor total = context.scratch.tensor({rows, 2}, z.dtype);
  cross_entropy_share(context, z, targets, first_id, stats);
  tp_.comm().all_gather(stats, all).wait();
  cross_entropy_total(context, all, targets, loss, total);
  if (with_gradient) cross_entropy_share_gradient(context, z, targets, first_id, total, scale);
}

// x [n_local, H], targets [n], z [n, V_local], loss [n]; dx [n_local, H] or empty.
void LmHead::chunk(const Context& context, const Tensor& x, const Tensor& targets, double scale, const Tensor& z, const Tensor& loss, const Tensor& dx) const {
  Arena::Scope scope(context.scratch);
  const Tensor& w = weight_->value;
  Tensor all = tp_.enter(context.scratch, x);
  matmul(context, all, Trans::no, w, Trans::yes, z, Accumulate::no);
  cross_entropy_of(context, z, targets, scale, loss, !dx.empty());
  if (dx.empty()) return;
  Tensor part = tp_.part_of_sum(context.scratch, dx);
  matmul(context, z, Trans::no, w, Trans::no, part, Accumulate::no);
  Pending sum = tp_.leave(part, dx);
  matmul(context, z, Trans::yes, all, Trans::no, weight_->gradient, Accumulate::yes);
  sum.wait();
}

void LmHead::forward(const Context& context, const Tensor& x, const Tensor& targets, double scale, const Tensor& token_loss, const Tensor& dx) const {
  // A chunk takes the same number of rows from every rank's part of the tokens.
  std::int64_t local = x.rows(), parts = targets.numel() / std::max<std::int64_t>(local, 1);
  std::int64_t step = std::min(std::max<std::int64_t>(chunk_tokens() / std::max<std::int64_t>(parts, 1), 1), local);
  Arena::Scope scope(context.scratch);
  Tensor buffer = context.scratch.tensor({step * parts, weight_->value.rows()}, accumulator_of(x.dtype));
  Tensor chunk_targets = context.scratch.tensor({step * parts}, DType::i32), chunk_loss = context.scratch.tensor({step * parts}, token_loss.dtype);
  for (std::int64_t begin = 0; begin < local; begin += step) {
    std::int64_t end = std::min(begin + step, local), n = end - begin;
    Tensor z = buffer.slice_rows(0, n * parts), dx_rows = dx.empty() ? dx : dx.slice_rows(begin, end);
    if (!tp_.sequence_parallel()) {
      chunk(context, x.slice_rows(begin, end), targets.slice_rows(begin, end), scale, z, token_loss.slice_rows(begin, end), dx_rows);
      continue;
    }
    for (std::int64_t i = 0; i < parts; ++i)
      copy_integers(context, targets.slice_rows(i * local + begin, i * local + end), chunk_targets.slice_rows(i * n, (i + 1) * n));
    chunk(context, x.slice_rows(begin, end), chunk_targets.slice_rows(0, n * parts), scale, z, chunk_loss.slice_rows(0, n * parts), dx_rows);
    std::int64_t own = tp_.comm().rank() * n;
    convert(context, chunk_loss.slice_rows(own, own + n), token_loss.slice_rows(begin, end));
  }
}

void LmHead::logits(const Context& context, const Tensor& x, const Tensor& logits) const {
  AF_CHECK(tp_.alone(), "the logits of a vocabulary that {} ranks share", tp_.comm().size());
  matmul(context, x, Trans::no, weight_->value, Trans::yes, logits, Accumulate::no);
}

}  // namespace af
