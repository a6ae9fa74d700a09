// Memory of a device: Buffer owns a block, Arena hands out tensors of one block after the other (a bump allocator).
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/tensor.h"

namespace af {

// One block of device memory, 64-byte aligned, huge pages where the system has them, not initialised.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Device& device, std::size_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  Device device_;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Tensors that live until reset() or the end of a Scope. It grows by blocks while it learns how much a step needs;
// reset() of an empty-handed arena merges them into one, so that from the second step on nothing is allocated.
// `limit` (bytes, 0: none) makes it a capped pool: going beyond throws InternalError naming the arena.
class Arena {
 public:
  explicit Arena(const Device& device, std::string name, std::size_t limit = 0);
  Tensor tensor(const Shape& shape, DType dtype);  // uninitialised, 64-byte aligned
  void reset();                                    // everything handed out so far is void
  std::size_t used() const { return used_; }       // bytes handed out now
  std::size_t peak() const { return peak_; }       // most bytes ever handed out at once
  std::size_t capacity() const;                    // bytes held from the device
  const std::string& name() const { return name_; }

  // Frees on leaving the block what was taken since it was entered: for scratch within an operation.
  class Scope {
   public:
    explicit Scope(Arena& arena);
    ~Scope();
    Scope(const Scope&) = delete;

   private:
    Arena& arena_;
    std::size_t block_, offset_, used_;
  };

 private:
  struct Block {
    Buffer buffer;
    std::size_t offset = 0;
  };
  Device device_;
  std::string name_;
  std::size_t limit_, used_ = 0, peak_ = 0, current_ = 0;
  std::vector<Block> blocks_;
};

// What every operation gets: where to run, and memory for what it needs only while it runs.
struct Context {
  Device device;
  Arena& scratch;
};

}  // namespace af
