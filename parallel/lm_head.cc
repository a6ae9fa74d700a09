#include "parallel/lm_head.h"

#include <algorithm>

#include "core/ops/cross_entropy.h"
#include "core/ops/matmul.h"

namespace af {

std::int64_t LmHead::chunk_tokens(std::int64_t vocab_size) {
  // 16 Mi logits (64 MiB in fp32): large enough that dW, read and written once per chunk, costs little beside the product.
  return std::clamp<std::int64_t>((std::int64_t(16) << 20) / vocab_size / 64 * 64, 64, 2048);
}

void LmHead::forward(const Context& context, const Tensor& x, const Tensor& targets, double scale, const Tensor& token_loss, const Tensor& dx) const {
  const Tensor& w = weight_->value;
  std::int64_t vocab_size = w.rows(), tokens = x.rows(), chunk = std::min(chunk_tokens(vocab_size), tokens);
  Arena::Scope scope(context.scratch);
  Tensor buffer = context.scratch.tensor({chunk, vocab_size}, accumulator_of(x.dtype));
  for (std::int64_t begin = 0; begin < tokens; begin += chunk) {
    std::int64_t end = std::min(begin + chunk, tokens);
    Tensor x_chunk = x.slice_rows(begin, end), z = buffer.slice_rows(0, end - begin);
    matmul(context, x_chunk, Trans::no, w, Trans::yes, z, Accumulate::no);
    cross_entropy(context, z, targets.slice_rows(begin, end), token_loss.slice_rows(begin, end), scale,
                  dx.empty() ? WithGradient::no : WithGradient::yes);
    if (dx.empty()) continue;
    matmul(context, z, Trans::no, w, Trans::no, dx.slice_rows(begin, end), Accumulate::no);
    matmul(context, z, Trans::yes, x_chunk, Trans::no, weight_->gradient, Accumulate::yes);
  }
}

void LmHead::logits(const Context& context, const Tensor& x, const Tensor& logits) const {
  matmul(context, x, Trans::no, weight_->value, Trans::yes, logits, Accumulate::no);
}

}  // namespace af
