// The keys (normed, rotated) and values of tokens that a model has seen, layer by layer: what attention needs of them when more follow.
// Memory: 2 * layers * rows * Hkv * D numbers, taken from the system as it is written.
#pragma once
#include "core/memory.h"
#include "models/config.h"

namespace af {

class KeyValueCache {
 public:
  KeyValueCache(const ModelConfig& config, const Device& device, DType dtype, std::int64_t rows);

  std::int64_t rows() const { return rows_; }
  Tensor keys(std::int64_t layer) const { return part(2 * layer); }  // [rows, Hkv, D]
  Tensor values(std::int64_t layer) const { return part(2 * layer + 1); }

 private:
  Tensor part(std::int64_t index) const;

  std::int64_t rows_, key_heads_, head_dim_;
  DType dtype_;
  std::size_t part_bytes_;
  Buffer buffer_;
};

}  // namespace af
