// An operation under way: streams of messages, and what to do as they arrive. Used on the engine's thread alone, but for
// what is said otherwise. The algorithms, n ranks, rank r:
//   all_gather, all_to_all_v   each rank sends each other its part, received in place
//   reduce_scatter             each rank sends each other that one's part of x, in pieces; r sums the pieces in rank order
//   all_reduce                 the same, and a summed piece is sent to all others at once, received in place
//   broadcast                  binomial tree, in pieces that are passed on as they come
//   in big groups, where messages cost more than bytes: few ranks sum a small all_reduce, 2 (n - 1) messages each; a small
//                              all_gather, and a barrier, goes to rank 0 and down a binomial tree
// Besides, each rank of a collective sends a header to rank r + 1: two ranks in different operations, or of different
// shapes, are found whatever messages these operations exchange.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "core/memory.h"
#include "parallel/comm.h"
#include "parallel/comm_tag.h"
#include "parallel/comm_transport.h"

namespace af::comm {

struct Group {
  Engine* engine = nullptr;
  Axis axis = Axis::world;
  int id = 0, rank = 0;
  std::vector<int> members;                            // world ranks
  std::uint64_t sequence = 0;                          // collectives started; under the engine's lock
  std::vector<std::uint64_t> sent, received;           // messages started to and from each member; under the engine's lock
  std::vector<std::unique_ptr<Operation>> operations;  // all ever made, for use again
  std::vector<Operation*> free;                        // under the engine's lock
  // Memory for what arrives before it is summed: two operations of a group may have some at a time, in the order of their
  // start, which is the same on all ranks: nobody waits in a circle.
  Buffer staging;
  bool staging_used[2] = {false, false};
  std::uint64_t staging_asked = 0, staging_given = 0;
  int size() const { return int(members.size()); }
};

// Messages of one phase to or from one rank, in pieces.
struct Stream {
  static constexpr int kWindow = 4;  // messages under way
  bool send = false;
  int peer = 0;  // rank in the group
  Phase phase = Phase::parts;
  char* data = nullptr;
  std::int64_t bytes = 0, piece = 0;
  int slots = 0;   // > 0: piece i stands at data + (i % slots) * piece
  int pieces = 1;  // an empty stream is one empty message
  int ready = 0;   // pieces that may be started
  int posted = 0, done = 0;
  Request requests[kWindow];
  bool finished() const { return done == pieces; }
};

// What all ranks of a collective must agree on.
struct Header {
  std::uint64_t sequence = 0;
  std::int64_t elements = 0;    // of x, or of a row where ranks have different numbers of rows
  std::uint64_t rows_hash = 0;  // of the rows of all ranks
  std::int32_t group = 0, root = 0;
  CommKind kind = CommKind::barrier;
  DType dtype = DType::f32;
  Reduction reduction = Reduction::sum;
  Axis axis = Axis::world;
  bool operator==(const Header&) const = default;
  std::string str() const;  // "all_reduce #5 on axis tp (sum of 16 float32)"
};

inline constexpr int kBigGroup = 9;  // ranks
// How many ranks of a group sum a part of an all_reduce each: number i is rank i * ranks / owners.
int owners_of_sum(int ranks, std::int64_t bytes);

struct Operation {
  enum class State { running, done, failed };
  Group* group = nullptr;
  Header header;  // for send and receive, root is the other rank
  Tensor x, out;
  std::vector<std::int64_t> send_offset, receive_offset;  // [n + 1], bytes of the parts in x and out

  std::atomic<State> state{State::running};           // written by the engine
  bool detached = false;                              // nobody waits for it (fault early_wait); the engine frees it
  std::int64_t not_before = 0;                        // ns; likewise
  std::int64_t bytes = 0;                             // that this rank sends
  std::int64_t begun = 0, ended = 0, wait_begun = 0;  // ns of the system's clock
  std::int64_t started = 0;                           // by the steady clock
  std::uint64_t number = 0;                           // of this rank's operations

  void reserve();  // memory for any operation of the group
  void begin();
  bool advance();  // whether anything happened; at the end finished() holds. Throws InternalError on a mismatch.
  bool finished() const { return finished_; }
  void release_staging();
  void missing(std::vector<int>& ranks) const;  // world ranks from which nothing came yet, or that took nothing; else: not all
  bool left_missing() const { return has_header() && !streams_[1].finished(); }

 private:
  enum class Form { exchange, reduce, tree, broadcast };
  bool has_header() const { return header.kind != CommKind::send && header.kind != CommKind::receive; }
  Stream& add(bool send, int peer, Phase phase, char* data, std::int64_t bytes, std::int64_t piece = std::int64_t(1) << 30);
  bool advance(Stream& stream);
  void check_header();
  bool take_staging();
  void begin_form();
  void begin_exchange();
  void begin_reduce();
  void begin_tree();
  void begin_broadcast();
  void begin_staged();  // of a reduction
  bool after_reduce();
  bool after_tree();
  bool after_broadcast();
  std::int64_t part_bytes(int rank) const { return send_offset[rank + 1] - send_offset[rank]; }

  Form form_ = Form::exchange;
  std::vector<Stream> streams_;  // with a header, the first two are its own
  bool header_checked_ = false, finished_ = false;
  bool gather_ = false;  // the sum goes to all
  std::string misfit_;   // of bytes; reported where no header says more
  std::int64_t misfit_since_ = 0;
  std::int64_t staging_bytes_ = 0;  // needed
  int staging_half_ = -1;           // held
  char* staging_ = nullptr;
  Header left_;                                                                          // header of rank r - 1
  std::vector<const void*> sources_;                                                     // of a sum
  char* own_ = nullptr;                                                                  // place of this rank's sum
  std::int64_t piece_ = 0;                                                               // bytes of a piece
  int summed_ = 0, pieces_ = 0, slots_ = 0;                                              // pieces of this rank's sum
  int first_in_ = 0, first_out_ = 0, first_gather_ = 0, first_down_ = 0, incoming_ = 0;  // where streams of a phase begin
  int parent_ = -1;                                                                      // stream of a tree
  bool passed_down_ = false;                                                             // likewise
  std::uint64_t staging_ticket_ = 0;
};

std::int64_t now_ns();     // of the system's clock, comparable between hosts: for records
std::int64_t steady_ns();  // of a clock that nobody sets: for durations

}  // namespace af::comm
