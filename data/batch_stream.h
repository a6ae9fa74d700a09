// What the trainer eats: sequences of seq_length tokens packed from documents of several sources, in an order that depends
// on the seed and the mix alone, never on the number of ranks or threads.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "data/document.h"
#include "data/mixture.h"
#include "data/source_plan.h"
#include "data/stream_state.h"

namespace af {

// One sequence (design: decisions 2, 17 and 18). The target of a token is the next token of the same document, also where that
// stands in another sequence; the end-of-document token has none. Each piece of a document that is cut begins anew: position
// 0, no attention across. Masked tokens, which best_fit may leave at the end, are a document of their own without targets.
struct PackedSequence {
  std::vector<std::int32_t> tokens;           // [S]
  std::vector<std::int32_t> targets;          // [S] -1: not counted (end of document, outside the loss mask, of another role than asked for)
  std::vector<std::int32_t> positions;        // [S] restart with each document
  std::vector<std::int64_t> document_begins;  // 0 = first, ..., S: cu_seqlens within the sequence; masked tokens are the last
  std::int64_t padding = 0;                   // how many tokens at the end are masked
  std::vector<std::uint8_t> roles;            // [S] role of each *target* (data/document.h); 0 where unknown
  int source = 0;                             // index in the stream's sources
  std::int64_t global_index = 0;              // number of the sequence since the run's beginning
  bool operator==(const PackedSequence&) const = default;
};

struct SourceSpec {
  std::string path;
  std::string name;   // its place in the ledger and in the random order; empty: the file's name without folder and ending
  double weight = 1;  // share of the sequences, > 0; divided by the sum of all
  bool operator==(const SourceSpec&) const = default;
};

// What a sequence is made of.
struct SequenceContents {
  struct Part {
    std::int64_t epoch, document, begin, end;  // tokens [begin, end) of the document
    bool operator==(const Part&) const = default;
  };
  std::int64_t global_index = 0;
  int source = 0;
  std::vector<Part> parts;
  std::int64_t padding = 0;
};

// UserError where the dataset has more ids than the model's embedding.
void check_vocabulary(const std::string& path, std::int64_t model_vocab_size);

class SourceReader;  // an open dataset with its order

class SequenceStream {
 public:
  // Sources that `begin` knows by name go on where they were, and what it passes over is not given, as if it were not in the
  // datasets; where the weights differ from its mix, the counting of
  // sequences per source begins anew. Neither another seq_length nor another packing than before loses or repeats a token.
  // Everything wrong with the sources is a UserError. loss_roles: only targets of these roles count, of those that the loss mask leaves.
  SequenceStream(std::vector<SourceSpec> sources, std::int64_t seq_length, std::uint64_t seed, const StreamState& begin = {},
                 Order order = Order::shuffled, Packing packing = Packing::sequential, std::optional<RoleSet> loss_roles = {});
  ~SequenceStream();
  SequenceStream(const SequenceStream&) = delete;

  // Advances by `count` sequences and gives those whose global_index % num_shards == shard; out's memory is reused.
  // A background thread reads on, expecting the same shard in the next call.
  void next(std::int64_t count, std::int64_t shard, std::int64_t num_shards, std::vector<PackedSequence>& out);
  // How many sequences are read ahead of calls that give `own` each.
  static std::int64_t sequences_ahead(std::int64_t own, std::int64_t seq_length);

  // Advances by `count` sequences without reading a token.
  void skip(std::int64_t count);
  std::vector<SequenceContents> contents(std::int64_t count);  // what next(count, 0, 1) would give

  StreamState state() const;  // after what next() has given

  const std::string& source_name(std::size_t source) const;
  // Whole sequences in one epoch of the source: how many a validation in sequential order may read without repeating.
  std::int64_t sequences_per_epoch(std::size_t source) const;

 private:
  // Where the stream stands: which sequence comes next follows from it without reading anything.
  struct Plan {
    Mixture mixture;
    std::int64_t consumed = 0, consumed_in_mix = 0;  // sequences given
    std::vector<SourcePlan::Cursor> cursors;         // per source, likewise the sequences that it has given
    std::vector<std::int64_t> sequences;
    std::int64_t passed = 0;      // sequences passed over so far, and the first range that is ahead
    std::size_t next_range = 0;
  };
  struct Pick {
    std::int64_t global_index;
    std::size_t source;
    SourcePlan::Pick of_source;
  };
  Pick advance(Plan& plan) const;
  void pass_over(Plan& plan) const;
  void read_ahead();  // the background thread

  std::int64_t seq_length_;
  Packing packing_;
  std::optional<RoleSet> loss_roles_;
  std::vector<std::unique_ptr<SourceReader>> readers_;
  std::vector<SourceLedger> earlier_;  // sources of earlier mixes
  const std::vector<PassedOver> passed_over_;
  std::vector<double> weights_;
  Plan given_;  // after what next() has given; the caller's thread only

  // Shared with the background thread, under mutex_; ahead_ and the slot behind the ready ones are its own while filling_.
  // slots_ is a ring: [first_, first_ + ready_) are filled.
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
