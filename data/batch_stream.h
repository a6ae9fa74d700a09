// What the trainer eats: sequences of seq_length tokens packed from documents of several sources, in an order that depends
// on the seed and the mix alone, never on the number of ranks or threads.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "data/mixture.h"
#include "data/source_order.h"
#include "data/stream_state.h"

namespace af {

// One sequence (design: decisions 2 and 17). The target of a token is the next token of the same document, also where that
// stands in the next sequence; the end-of-document token has none. A document cut at the sequence's end begins anew in the
// next one: position 0, no attention across.
struct PackedSequence {
  std::vector<std::int32_t> tokens;           // [S]
  std::vector<std::int32_t> targets;          // [S] -1: not counted (end of document, or outside the loss mask)
  std::vector<std::int32_t> positions;        // [S] restart with each document
  std::vector<std::int64_t> document_begins;  // 0 = first, ..., S: cu_seqlens within the sequence
  std::vector<std::uint8_t> roles;            // [S] role of each *target* (data/document.h); 0 where unknown
  int source = 0;                             // index in the stream's sources
  std::int64_t global_index = 0;              // number of the sequence since the run's beginning
  bool operator==(const PackedSequence&) const = default;
};

struct SourceSpec {
  std::string path;
  std::string name;   // its place in the ledger and in the random order; empty: the file's name without folder and ending
  double weight = 1;  // share of the sequences, > 0; divided by the sum of all
};

// UserError where the dataset has more ids than the model's embedding.
void check_vocabulary(const std::string& path, std::int64_t model_vocab_size);

class SourceReader;  // an open dataset with its order

class SequenceStream {
 public:
  // Sources that `begin` knows by name go on where they were; where the weights differ from its mix, the counting of
  // sequences per source begins anew. Everything wrong with the sources is a UserError.
  SequenceStream(std::vector<SourceSpec> sources, std::int64_t seq_length, std::uint64_t seed, const StreamState& begin = {},
                 Order order = Order::shuffled);
  ~SequenceStream();
  SequenceStream(const SequenceStream&) = delete;

  // Advances by `count` sequences and gives those whose global_index % num_shards == shard; out's memory is reused.
  // A background thread reads on, expecting the same shard in the next call.
  void next(std::int64_t count, std::int64_t shard, std::int64_t num_shards, std::vector<PackedSequence>& out);

  StreamState state() const;  // after what next() has given

  std::size_t num_sources() const { return readers_.size(); }
  const std::string& source_name(std::size_t source) const;
  // Whole sequences in one epoch of the source: how many a validation in sequential order may read without repeating.
  std::int64_t sequences_per_epoch(std::size_t source) const;

 private:
  // Where the stream stands: which sequence comes next follows from it without reading anything.
  struct Plan {
    Mixture mixture;
    std::int64_t consumed = 0;                       // sequences
    std::vector<std::int64_t> positions, sequences;  // per source
  };
  struct Pick {
    std::int64_t global_index, position;
    std::size_t source;
  };
  Pick advance(Plan& plan) const;
  void read_ahead();  // the background thread

  std::int64_t seq_length_;
  std::vector<std::unique_ptr<SourceReader>> readers_;
  std::vector<SourceLedger> earlier_;  // sources of earlier mixes
  std::vector<double> weights_;
  Plan given_;  // after what next() has given; the caller's thread only

  // Shared with the background thread, under mutex_. slots_ is a ring: [first_, first_ + ready_) are filled.
  mutable std::mutex mutex_;
  std::condition_variable wanted_, filled_;
  Plan ahead_;
  std::int64_t shard_ = -1, num_shards_ = 0;
  std::vector<PackedSequence> slots_;
  std::size_t first_ = 0, ready_ = 0;
  bool filling_ = false, stopping_ = false;
  std::exception_ptr failure_;
  std::thread thread_;
};

}  // namespace af
