#include "models/kv_cache.h"

namespace af {

KeyValueCache::KeyValueCache(const ModelConfig& config, const Device& device, DType dtype, std::int64_t rows)
    : rows_(rows),
      key_heads_(config.num_key_value_heads),
      head_dim_(config.head_dim),
      dtype_(dtype),
      part_bytes_((std::size_t(rows * key_heads_ * head_dim_) * size_of(dtype) + 63) / 64 * 64),
      buffer_(device, 2 * std::size_t(config.num_hidden_layers) * part_bytes_) {}

Tensor KeyValueCache::part(std::int64_t index) const {
  return Tensor(static_cast<char*>(buffer_.data()) + std::size_t(index) * part_bytes_, dtype_, {rows_, key_heads_, head_dim_});
}

}  // namespace af
