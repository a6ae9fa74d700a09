// The way of tokens to their experts and back (dropless; arXiv 2504.14960): all-to-all-v over the expert-parallel ranks, all-gather over
// the expert-tensor-parallel ones, and the sort that brings the rows of one expert together. Ranks without a token are ordinary.
// Where a rank would get more rows than planned, all of them go in several rounds.
// Letters: R rows (token, choice) of this rank in the order of the experts, N rows for this rank's experts, E experts in all.
#pragma once
#include <cstdint>
#include <span>

#include "core/memory.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"

namespace af {

class TokenDispatcher {
 public:
  TokenDispatcher() = default;  // one rank
  TokenDispatcher(const Mesh& mesh, std::int64_t num_experts) : ep_(mesh.ep), etp_(mesh.etp), experts_(num_experts) {}
  bool alone() const { return ep_.size() == 1 && etp_.size() == 1; }

  // Who has how much for whom, in one layer of one micro-batch. Host memory; its size does not depend on the routing.
  struct Plan {
    Tensor sent;              // [ep, E] int64: rows of each expert on every rank of ep
    Tensor received;          // [etp, ep E_local + ep] int64: of every rank of etp what it receives for this rank's experts, source by
                              // source, and what each rank of ep receives from it in all
    Tensor before;            // [ep] int64: rows for each rank of ep that come by the ranks of etp before this one
    std::int64_t rounds = 1;  // in which the layer is run, the same for all ranks of ep and etp
  };
  // What moves in one round.
  struct Round {
    Range sent;                      // of this rank's rows
    Tensor send_rows, receive_rows;  // [ep] int64
    Tensor group_rows;               // [etp] int64: rows that each rank of etp received
    Tensor sorted_from, sorted_to;   // [N] int32: the row that comes first, second, ... in expert order; its inverse
    Tensor offsets;                  // [E_local + 1] int64: rows of each of this rank's experts
    std::int64_t rows = 0;           // N
  };
  // offsets [E + 1]: this rank's rows of each expert. As many rounds as it takes for no rank to have more than `most` rows in one
  // (0: any number in one round). Collective over ep and etp.
  Plan plan(const Context& context, Arena& memory, std::span<const std::int64_t> offsets, std::int64_t most = 0) const;
  // Each block of rows (from one rank, for one expert) is cut in `rounds` parts, equal but for one row; the odd rows of all blocks go
  // round by turns, so that a rank with n rows has at most ceil(n / rounds) of them in a round.
  Round round(const Context& context, Arena& memory, const Plan& plan, std::int64_t index) const;
  std::size_t round_bytes(std::int64_t rows) const;  // of `memory`
  // Brings rows that are in the order of the experts into that of the rounds: source [R] and its inverse position, both int32 (rows beyond
  // those of the experts stay).
  void sort_by_round(const Context& context, const Plan& plan, const Tensor& source, const Tensor& position) const;

  // out [N, ...] in expert order from the round's rows [R, ...].
  void dispatch(const Context& context, const Round& round, const Tensor& rows, const Tensor& out) const;
  // The transpose: out [R, ...] from x [N, ...], summed over etp, whose ranks each have a part of the sum.
  void combine(const Context& context, const Round& round, const Tensor& x, const Tensor& out) const;
  // The same, to be waited for; what moves is in `memory`.
  Pending start_combine(const Context& context, Arena& memory, const Round& round, const Tensor& x, const Tensor& out) const;
  bool speaks() const { return ep_.rank() == 0 && etp_.rank() == 0; }  // one rank of those that exchange rows

 private:
  std::int64_t local_experts() const { return experts_ / ep_.size(); }
  Range own_part(const Plan& plan, std::int64_t expert, std::int64_t& before, std::int64_t index) const;
  Comm ep_, etp_;
  std::int64_t experts_ = 0;
};

}  // namespace af
