// The conjugate collectives of tensor and sequence parallelism (arXiv 1909.08053, 2205.05198), all of them here. Between the blocks
// of a layer the residual stream is [T_local, H]: with sequence parallelism rank i of tp holds the i-th of equal parts of the T
// tokens, without it every rank holds all. Inside a block every rank sees all T tokens and has a part of the heads or columns.
//   enter: [T_local, H] -> [T, H]    all-gather           (nothing without sequence parallelism)
//   leave: sum of the [T, H] -> [T_local, H]   reduce-scatter   (all-reduce)
// The gradient of enter is leave and the other way round: <leave(x), y> summed over ranks = <x, enter(y)>.
#pragma once
#include "core/memory.h"
#include "parallel/mesh.h"

namespace af {

class TensorParallel {
 public:
  TensorParallel() = default;  // one rank
  TensorParallel(const Comm& tp, bool sequence_parallel) : tp_(tp), sequence_(sequence_parallel && tp.size() > 1) {}

  const Comm& comm() const { return tp_; }
  bool alone() const { return tp_.size() == 1; }
  bool sequence_parallel() const { return sequence_; }
  std::int64_t local_tokens(std::int64_t tokens) const { return sequence_ ? tokens / tp_.size() : tokens; }
  // Which of `tokens` tokens, T, this rank holds.
  std::int64_t first_token(std::int64_t tokens) const { return sequence_ ? tokens / tp_.size() * tp_.rank() : 0; }
  Tensor own_rows(const Tensor& x) const { return sequence_ ? x.slice_rows(first_token(x.rows()), first_token(x.rows()) + local_tokens(x.rows())) : x; }

  // Starts to bring x [T_local, H] to all; `all` [T, H] is x itself or memory from the arena.
  struct Entering {
    Tensor all;
    Pending pending;
  };
  Entering start_enter(Arena& memory, const Tensor& x) const;
  Tensor enter(Arena& memory, const Tensor& x) const;
  // Where a block writes its part [T, H] of a sum that goes to `out` [T_local, H] by leave(): out itself, or memory from the arena.
  Tensor part_of_sum(Arena& memory, const Tensor& out) const;
  Pending leave(const Tensor& part, const Tensor& out) const;

 private:
  Comm tp_;
  bool sequence_ = false;
};

}  // namespace af
