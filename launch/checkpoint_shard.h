// One shard of a checkpoint: what one rank wrote. An HDF5 file with
//   /names      text: the published tensors of which it has a part, a line each
//   /shapes     i64 [tensors, 3]: number of dimensions, and their sizes
//   /pieces     i64 [pieces, 6]: tensor, rectangle (row, rows, col, cols) in global coordinates, element where its row-major block begins
//   /data       [states, elements]: master weights, then the moments exp_avg and exp_avg_sq, where there are any
//   /checksums  u32 [states, blocks]: CRC-32C of each kBlockElements of a state
// Structure and metadata go through the HDF5 library; /data is contiguous, and goes past it: read and written at its place in the
// file, so that the library's lock stalls nobody. The metadata (all but /data) has one hash, which the manifest knows: a file
// whose metadata are damaged is never opened by the library.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/tensor.h"
#include "data/raw_file.h"
#include "parallel/placement.h"

namespace af {

// A checkpoint that is not what was written: another may do in its place.
struct DamagedCheckpoint : UserError {
  using UserError::UserError;
};
template <class... Args>
[[noreturn]] void damaged(fmt::format_string<Args...> format, Args&&... args) {
  throw DamagedCheckpoint(fmt::format(format, std::forward<Args>(args)...));
}

// What cannot be read is damaged as well, be it the disk or a permission: another checkpoint may do in its place.
template <class Work>
void damaged_if_unreadable(Work work) {
  try {
    work();
  } catch (const UserError& error) {
    throw DamagedCheckpoint(error.what());
  }
}

inline constexpr const char* kStateNames[] = {"master", "exp_avg", "exp_avg_sq"};  // as OptimizerState
inline constexpr std::int64_t kBlockElements = 1 << 18;

struct ShardTensor {
  std::string name;
  Shape shape;  // of the whole tensor
};

struct ShardTable {
  struct Piece {
    std::int64_t tensor;  // index
    Rectangle where;
    std::int64_t offset;  // element of a state
  };
  std::vector<ShardTensor> tensors;
  std::vector<Piece> pieces;  // one behind the other
  std::int64_t elements = 0;  // of all pieces

  // A piece behind the others; a tensor's pieces come one after the other.
  void add(const std::string& name, const Shape& shape, const Rectangle& where);
  // The tensor that holds an element.
  const ShardTensor& tensor_at(std::int64_t element) const;
};

// What the manifest says of a shard.
struct ShardInfo {
  std::int64_t bytes = 0, data_offset = 0, elements = 0;
  std::uint64_t metadata_hash = 0;
};

std::string shard_file(std::int64_t rank);  // "shard-00003.h5"
// That a shard's file has at the most; 0: there is none.
std::int64_t most_shard_bytes(const ShardTable& table, DType dtype, int states);

class ShardWriter {
 public:
  // Takes the room on the disk at once.
  ShardWriter(const std::string& path, DType dtype, int states, const ShardTable& table);
  // The next `count` elements of a state.
  void append(int state, const void* data, std::int64_t count);
  ShardInfo finish();  // on the disk when it returns; everything must have been appended

 private:
  struct Progress {
    std::int64_t at = 0;
    std::uint32_t crc = 0;  // of the block under way
    std::vector<std::uint32_t> checksums;
  };
  void close_block(Progress& progress);

  std::int64_t elements_, element_size_, data_offset_ = 0, checksums_offset_ = 0;
  std::vector<Progress> states_;
  std::optional<RawFile> file_;
};

class ShardReader {
 public:
  // DamagedCheckpoint where the file is missing, of another size, or its metadata are not those of `info`.
  ShardReader(const std::string& path, DType dtype, int states, const ShardInfo& info);
  const ShardTable& table() const { return table_; }
  const std::string& path() const { return file_.path(); }
  std::int64_t blocks() const { return (table_.elements + kBlockElements - 1) / kBlockElements; }
  std::int64_t bytes_read() const { return bytes_read_; }  // of the states
  // Elements [begin, begin + count) of a state; every block that they touch is read and checked.
  void read(int state, std::int64_t begin, std::int64_t count, void* out);
  void check_block(int state, std::int64_t block);  // reads it, for the check alone

 private:
  void read_block(int state, std::int64_t block, char* out);
  std::int64_t block_size(std::int64_t block) const { return std::min(kBlockElements, table_.elements - block * kBlockElements); }

  RawFile file_;
  std::int64_t element_size_, data_offset_, bytes_read_ = 0;
  ShardTable table_;
  std::vector<std::uint32_t> checksums_;  // [states, blocks]
  std::vector<char> kept_;                // the last block of which only a part was asked for
  std::int64_t kept_state_ = -1, kept_block_ = -1;
};

}  // namespace af
