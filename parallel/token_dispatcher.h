// The way of tokens to their experts and back (dropless; arXiv 2504.14960): all-to-all-v over the expert-parallel ranks, all-gather over
// the expert-tensor-parallel ones, and the sort that brings the rows of one expert together. Ranks without a token are ordinary.
// Letters: R rows (token, choice) of this rank in the order of the experts, N rows for this rank's experts, E experts in all.
#pragma once
#include <cstdint>
#include <span>

#include "core/memory.h"
#include "parallel/mesh.h"

namespace af {

class TokenDispatcher {
 public:
  TokenDispatcher() = default;  // one rank
  TokenDispatcher(const Mesh& mesh, std::int64_t num_experts) : ep_(mesh.ep), etp_(mesh.etp), experts_(num_experts) {}
  bool alone() const { return ep_.size() == 1 && etp_.size() == 1; }

  // Who sends how much to whom, for one layer of one micro-batch. Host memory.
  struct Plan {
    Tensor send_rows, receive_rows;  // [ep] int64
    Tensor group_rows;               // [etp] int64: rows that each rank of etp received
    Tensor sorted_from, sorted_to;   // [N] int32: the row that comes first, second, ... in expert order; its inverse
    Tensor offsets;                  // [E_local + 1] int64: rows of each of this rank's experts
    std::int64_t rows = 0;           // N
  };
  // offsets [E + 1]: this rank's rows of each expert. Collective over ep and etp.
  Plan plan(const Context& context, Arena& memory, std::span<const std::int64_t> offsets) const;

  // out [N, ...] in expert order from rows [R, ...].
  void dispatch(const Context& context, const Plan& plan, const Tensor& rows, const Tensor& out) const;
  // The transpose: out [R, ...] from x [N, ...], summed over etp, whose ranks each have a part of the sum.
  void combine(const Context& context, const Plan& plan, const Tensor& x, const Tensor& out) const;
  // The same, to be waited for; what moves is in `memory`.
  Pending start_combine(const Context& context, Arena& memory, const Plan& plan, const Tensor& x, const Tensor& out) const;

 private:
  Comm ep_, etp_;
  std::int64_t experts_ = 0;
};

}  // namespace af
