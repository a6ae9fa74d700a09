// The state of one rank on its way to its shard, while the optimizer wants to go on (launch/checkpoint_saver.h).
#pragma once
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "launch/checkpoint_shard.h"
#include "parallel/optimizer.h"

namespace af {

class StateStream {
 public:
  // What this rank counts of the optimizer's state, in chunks in the order in which step() changes them.
  StateStream(const ParameterSet& set, Optimizer& optimizer, std::int64_t staging_bytes);
  ~StateStream();
  const ShardTable& table() const { return table_; }
  std::int64_t bytes() const { return 3 * table_.elements * std::int64_t(size_of(dtype_)); }
  // Writes everything; on another thread than the optimizer's. Throws where the disk does not take it, or after stop().
  ShardInfo write(const std::string& path);
  void stop();  // write() ends soon, and nobody waits for it
  double waited_seconds() const { return waited_; }  // that the optimizer lost; its thread's

 private:
  enum class At { live, being_copied, staged, done };
  struct Chunk {
    int bucket;
    std::int64_t begin, count;  // of the bucket's share
    At at = At::live;
    bool being_written = false;  // from the live buffers
    std::unique_ptr<char[]> copy{};  // three states
  };
  void write(Chunk& chunk, ShardWriter& writer, const std::string& path);
  void before_update(int bucket, std::int64_t begin, std::int64_t end);
  const char* live(const Chunk& chunk, int state) const;

  Optimizer& optimizer_;
  DType dtype_;
  std::int64_t staging_limit_, staged_ = 0;
  ShardTable table_;
  std::vector<Chunk> chunks_;
  std::vector<std::vector<std::size_t>> of_bucket_;  // into chunks_, ascending
  std::vector<std::unique_ptr<char[]>> spare_;       // of kChunkElements each
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false;
  double waited_ = 0;
};

}  // namespace af
