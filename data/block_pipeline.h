// Threads that read, decompress, parse and tokenize; the blocks come out in the order of the input, whatever the number of
// threads. Memory: about 30 MB a thread, and more where lines are longer than a block (data/text_blocks.h).
#pragma once
#include <condition_variable>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "data/block_tokenizer.h"

namespace af {

struct FinishedBlock {
  BlockRecord record;
  std::string bytes;  // pack(record)
};

class BlockPipeline {
 public:
  struct Position {  // the block that comes first
    std::int64_t source = 0, block = 0;
    std::string sha256;  // of the file up to there; where it begins in the middle of a file
  };

  // Everything must outlive the pipeline.
  BlockPipeline(const Tokenizer& tokenizer, const TokenizeOptions& options, std::span<const TextSource> sources, const Position& begin,
                std::int64_t max_line_bytes, int threads);
  ~BlockPipeline();
  BlockPipeline(const BlockPipeline&) = delete;

  // false: all sources are done. What a thread met with a source is thrown here, after the blocks before it.
  bool next(FinishedBlock& block);

 private:
  using Place = std::pair<std::int64_t, std::int64_t>;  // source, block
  struct Reading {                                      // a file that has been begun
    std::unique_ptr<BlockReader> reader;
    bool busy = false;
  };
  void work();
  bool read_block(std::unique_lock<std::mutex>& lock);  // false: no file may be read now
  void tokenize_block(std::unique_lock<std::mutex>& lock, BlockTokenizer& tokenizer);
  std::unique_ptr<BlockReader> open(std::int64_t source) const;

  const Tokenizer& tokenizer_;
  const TokenizeOptions& options_;
  std::span<const TextSource> sources_;
  const Position begin_;
  const std::int64_t max_line_bytes_, most_in_flight_;

  std::mutex mutex_;  // of all below
  std::condition_variable changed_;
  std::map<std::int64_t, Reading> reading_;
  std::int64_t unopened_;            // the first source not yet begun
  std::map<Place, TextBlock> read_;  // waits for a thread
  std::map<Place, FinishedBlock> finished_;
  std::map<Place, std::int64_t> cost_;  // of the blocks in flight
  std::int64_t in_flight_ = 0;          // sum of these
  Place wanted_;                        // by next()
  bool stop_ = false;
  std::map<std::int64_t, std::exception_ptr> failures_;  // by source, which is not read further
  std::vector<std::thread> threads_;
};

}  // namespace af
