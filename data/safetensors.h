// The safetensors format (github.com/huggingface/safetensors): a header of JSON that says where each tensor lies, then the
// bytes. Everything the header says is checked against the file before a byte is used.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace af {

struct SafetensorsInfo {
  std::string name;
  std::string dtype;                // the format's word: F32, BF16, F16, F64, I32, I64 ...
  std::vector<std::int64_t> shape;  // [] is a scalar
  std::int64_t begin = 0, end = 0;  // bytes from the start of the data

  std::int64_t numel() const;
  std::int64_t bytes() const { return end - begin; }
  std::string shape_text() const;  // "[3, 4]"
};

std::size_t safetensors_size_of(const std::string& dtype);  // bytes an element; 0: unknown type

// One file, open for reading. Reads are positioned: several threads may read at once.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);  // UserError: no file, a broken header, a size that does not fit
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&& other) noexcept;
  SafetensorsFile(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::vector<SafetensorsInfo>& tensors() const { return tensors_; }  // in the order of their data
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const SafetensorsInfo* find(const std::string& name) const;
  // Bytes [offset, offset + size) of the tensor.
  void read(const SafetensorsInfo& info, std::int64_t offset, std::int64_t size, void* out) const;

 private:
  void read_header();
  std::string path_;
  int fd_ = -1;
  std::int64_t data_begin_ = 0;
  std::vector<SafetensorsInfo> tensors_;
  std::map<std::string, std::size_t> index_;
  std::map<std::string, std::string> metadata_;
};

// The tensors of a folder: model.safetensors, or the shards that model.safetensors.index.json names (both must agree).
class SafetensorsFolder {
 public:
  explicit SafetensorsFolder(const std::string& folder);
  struct Entry {
    const SafetensorsFile* file;
    const SafetensorsInfo* info;
  };
  const std::map<std::string, Entry>& tensors() const { return tensors_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::map<std::string, SafetensorsFile> files_;
  std::map<std::string, Entry> tensors_;
};

// Writes one file, tensor by tensor in any order; nothing of a tensor is kept in memory. The file appears under its
// name with finish(), until then it is aside; without finish() nothing remains.
class SafetensorsWriter {
 public:
  // begin and end need not be set. The data are laid as the safetensors library lays them: by size of the type (largest
  // first), then by name.
  SafetensorsWriter(const std::string& path, std::vector<SafetensorsInfo> tensors, const std::map<std::string, std::string>& metadata);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  const std::vector<SafetensorsInfo>& tensors() const { return tensors_; }  // in the order of their data
  // Bytes [offset, offset + size) of the tensor.
  void write(const SafetensorsInfo& info, std::int64_t offset, std::int64_t size, const void* data);
  void finish();  // every byte of every tensor must have been written once

 private:
  std::string path_, aside_;
  int fd_ = -1;
  std::int64_t data_begin_ = 0, written_ = 0, size_ = 0;
  std::vector<SafetensorsInfo> tensors_;
};

// Which shard each tensor goes to, in the given order, as transformers does it: a shard is closed before the tensor that
// would take it beyond max_shard_size (bytes); a tensor larger than that has its own, placed before the one being filled.
std::vector<std::vector<SafetensorsInfo>> split_into_shards(const std::vector<SafetensorsInfo>& tensors, std::int64_t max_shard_size);
// "model.safetensors", or "model-00002-of-00007.safetensors" for shard 1 of 7.
std::string shard_name(std::size_t shard, std::size_t num_shards);
// model.safetensors.index.json of these shards.
std::string shard_index(const std::vector<std::vector<SafetensorsInfo>>& shards, std::int64_t total_parameters);

}  // namespace af
