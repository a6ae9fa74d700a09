// A checkpoint that is read: rectangles of its tensors by name, out of whatever shards hold them. Only what is asked for is read
// (in blocks of kBlockElements), and every byte is checked before it is believed: DamagedCheckpoint names file and tensor.
#pragma once
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "launch/checkpoint_manifest.h"

namespace af {

class CheckpointReader {
 public:
  // Opens the manifest and the tables of all shards. UserError where this is no checkpoint.
  explicit CheckpointReader(const std::string& path);

  const std::string& path() const { return path_; }
  const CheckpointManifest& manifest() const { return manifest_; }
  DType dtype() const { return manifest_.dtype; }
  std::string file(const std::string& name) const { return read_listed_file(path_, manifest_, name); }
  bool has(const std::string& tensor) const { return places_.contains(tensor); }
  const Shape& shape(const std::string& tensor) const;  // UserError where there is no such tensor
  // Each with its shape, as the shards have them.
  void for_each_tensor(const std::function<void(const ShardTensor&)>& f) const;

  // A rectangle of a tensor, to rows that are `pitch` elements of dtype() apart.
  struct Want {
    const std::string* tensor;
    Rectangle where;
    void* out;
    std::int64_t pitch;
  };
  void read(OptimizerState state, std::span<const Want> wants);
  std::int64_t bytes_read() const;  // of the states, so far
  // Whole rows of a tensor, as a TensorSource gives them: out [rows, cols].
  void read_rows(OptimizerState state, const std::string& tensor, std::int64_t row_begin, const Tensor& out);

 private:
  struct Place {
    std::size_t shard, piece;
  };
  const std::vector<Place>& places_of(const std::string& tensor) const;

  std::string path_;
  CheckpointManifest manifest_;
  std::deque<ShardReader> shards_;
  std::unordered_map<std::string, std::vector<Place>> places_;
};

// Everything that is wrong with a checkpoint, a message each; every byte of it is read. UserError where it is none.
std::vector<std::string> verify_checkpoint(const std::string& path);

}  // namespace af
