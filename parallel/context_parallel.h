// Context parallelism by gathering keys and values (design decision 11). A sequence of L tokens is cut into 2 CP chunks; rank r of
// cp holds chunks r and 2 CP - 1 - r, so that causal attention costs every rank the same. Queries stay; a rank gets the keys and
// values of those tokens alone that its own documents need: from the beginning of the document that a chunk begins in. Nothing
// moves where no document crosses a cut.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/memory.h"
#include "core/ops/attention.h"
#include "parallel/comm.h"
#include "parallel/parameter.h"

namespace af {

// The rows of a sequence of L tokens that rank `rank` of `ranks` holds, in their order there.
std::vector<Range> context_chunks(std::int64_t seq_length, int ranks, int rank);

// What moves for one micro-batch: a pure function of where its documents begin.
struct ContextPlan {
  std::int64_t key_rows = 0;                          // rows of the key buffer: the tokens this rank needs, in their order
  std::vector<std::int64_t> send_rows, receive_rows;  // [ranks], this rank's own included
  std::vector<std::int32_t> send;                     // [sum of send_rows]: rows of this rank, by destination
  std::vector<std::int32_t> received_at;              // [key_rows]: the received row that stands there
  std::vector<std::int32_t> key_of;                   // [key_rows]: its inverse
  std::vector<std::int32_t> returned;                 // [local rows, copies]: rows of `send` that are copies of it; send.size(): none
  std::int64_t copies = 0;
  std::vector<AttentionSegment> segments;             // query rows of this rank, key rows of the buffer
  bool moves = false;                                 // whether any rank sends anything to another

  // documents: of the whole micro-batch, `sequences` of L tokens, as half-open row ranges in order.
  void make(std::span<const AttentionSegment> documents, std::int64_t sequences, std::int64_t seq_length, int ranks, int rank);
};

// Rows x [T_local, ...] on their way into the key buffer.
class KeyExchange {
 public:
  KeyExchange(const Context& context, const Comm& cp, const ContextPlan& plan, const Tensor& x);  // starts; memory from context.scratch
  Tensor wait();                                                                                 // [key_rows, ...] in context.scratch

 private:
  const Context& context_;
  const ContextPlan& plan_;
  Tensor sent_, received_;
  Pending pending_;
};

// The transpose: gradients d_keys [key_rows, ...] go home, where those of one row are added in rank order to dx [T_local, ...].
class KeyGradientExchange {
 public:
  KeyGradientExchange(const Context& context, const Comm& cp, const ContextPlan& plan, const Tensor& d_keys);
  void wait(const Tensor& dx);  // overwrites dx

 private:
  const Context& context_;
  const ContextPlan& plan_;
  Tensor sent_, received_;  // received_ has one row more, of zeros
  Pending pending_;
};

}  // namespace af
