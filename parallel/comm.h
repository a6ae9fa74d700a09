// The one door for communication. A Comm is a group of ranks: a value, cheap to copy; groups of one do nothing.
// Every operation starts at once and returns a Pending, whose end is the operation's: `comm.all_reduce(x);` blocks,
// `Pending p = comm.all_reduce(x);` overlaps with what stands before p.wait(). Tensors must live, and not be touched, until then.
// All ranks of a group call the same collectives in the same order; shapes that do not fit, or another operation on another
// rank, end the job with a message that names both. Floating-point sums are taken in rank order, in the accumulator type:
// the same bits on every rank, in every run, on any hosts.
// Tensors are contiguous host memory of any DType; "rows" are dimension 0.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "core/tensor.h"

namespace af {

// What a group is for: names in messages, traces and metrics. pp also carries tied embeddings.
enum class Axis { world, tp, cp, ep, etp, dp, edp, pp };
inline constexpr int kAxes = 8;
const char* name_of(Axis axis);

enum class Reduction { sum, max };

enum class CommKind : std::uint8_t { all_reduce, all_gather, reduce_scatter, all_to_all_v, broadcast, send, receive, barrier };
const char* name_of(CommKind kind);

namespace comm {
class Engine;      // one per rank: a thread that owns the transport (parallel/comm_engine.h)
struct Group;      // the ranks of a Comm; owned by the engine
struct Operation;  // parallel/comm_operation.h
}  // namespace comm

// What every communicator of this rank is given at start.
struct CommOptions {
  double timeout_seconds = 600;    // an operation older than this ends the job; 0: never
  double heartbeat_seconds = 15;   // a rank that shows no sign of life for so long ends the job (parallel/comm_heartbeat.h); 0: never
  std::string recorder_directory;  // where rank-<r>.flight is written (parallel/comm_recorder.h); "": nowhere
  bool trace = false;              // keep every operation's times for write_trace (parallel/comm_trace.h)
  int ranks_on_host = 1;           // they decide how eagerly threads that wait look again: two threads of a rank may want a core each
};

// Payload sent by this rank since the start, in bytes, by axis (without the headers that check operations against each other).
struct AxisBytes {
  std::array<std::int64_t, kAxes> sent = {};
  std::int64_t& operator[](Axis axis) { return sent[int(axis)]; }
  std::int64_t operator[](Axis axis) const { return sent[int(axis)]; }
};

// An operation under way; a moved-from or default one is done. The destructor waits, and throws as wait() does: keep no
// failing one in a container that frees it quietly (wait() for each). An exception that passes a Pending under way stops
// this rank's communication at once, so that nothing touches memory that goes away.
class Pending {
 public:
  Pending() = default;
  Pending(Pending&& other) noexcept : operation_(other.operation_) { other.operation_ = nullptr; }
  Pending& operator=(Pending&& other);  // waits for the one it replaces
  ~Pending() noexcept(false);
  void wait();  // throws what went wrong on any rank
  bool done() const;

 private:
  friend class Comm;
  explicit Pending(comm::Operation* operation) : operation_(operation) {}
  comm::Operation* operation_ = nullptr;
};

class Comm {
 public:
  Comm() = default;  // one rank alone
  explicit Comm(comm::Group* group) : group_(group) {}
  int rank() const { return group_ ? rank_of_group() : 0; }
  int size() const { return group_ ? size_of_group() : 1; }
  Axis axis() const;
  int world_rank(int rank) const;  // what a member is called in messages
  AxisBytes bytes() const;         // of all communicators of this rank
  double seconds_waited() const;   // likewise: between wait() and its return, since the start
  comm::Engine* engine() const;    // none where one rank is alone
  // Ranks of the same colour, ordered by key, then by their rank here. Collective over this group.
  Comm split(Axis axis, int color, int key) const;

  Pending all_reduce(const Tensor& x, Reduction reduction = Reduction::sum) const;
  // out: the x of rank 0, of rank 1, ...; x [n, ...] and out [size * n, ...]. x may be its own place in out.
  Pending all_gather(const Tensor& x, const Tensor& out) const;
  // x [size * n, ...], out [n, ...] = sum over ranks of their part number rank(). out may be its own place in x.
  Pending reduce_scatter(const Tensor& x, const Tensor& out) const;
  // Likewise with parts of other sizes: rows[i] of rank i, the same on all ranks.
  Pending all_gather_v(const Tensor& x, const Tensor& out, std::span<const std::int64_t> rows) const;
  Pending reduce_scatter_v(const Tensor& x, const Tensor& out, std::span<const std::int64_t> rows) const;
  // The first send_rows[0] rows of x go to rank 0, the next to rank 1, ...; out likewise from rank 0, 1, ...
  Pending all_to_all_v(const Tensor& x, std::span<const std::int64_t> send_rows, const Tensor& out, std::span<const std::int64_t> receive_rows) const;
  Pending broadcast(const Tensor& x, int root) const;
  // Matched in order between each two ranks, independent of the collectives.
  Pending send(const Tensor& x, int to) const;
  Pending receive(const Tensor& x, int from) const;
  Pending barrier() const;

 private:
  int rank_of_group() const;
  int size_of_group() const;
  Pending start(CommKind kind, const Tensor& x, const Tensor& out, std::span<const std::int64_t> send_rows,
                std::span<const std::int64_t> receive_rows, int peer, Reduction reduction) const;
  comm::Group* group_ = nullptr;
};

}  // namespace af
