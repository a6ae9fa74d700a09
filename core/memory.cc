#include "core/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace af {
namespace {
constexpr std::size_t kAlign = 64, kHugePage = std::size_t(2) << 20, kFirstBlock = kHugePage;
std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }
}  // namespace

Buffer::Buffer(const Device& device, std::size_t bytes) : device_(device), bytes_(round_up(std::max<std::size_t>(bytes, 1), kAlign)) {
  AF_CHECK(device.type == Device::Type::cpu, "this build has no memory for another device than the CPU");
  if (bytes_ >= kHugePage) bytes_ = round_up(bytes_, kHugePage);
  data_ = std::aligned_alloc(bytes_ >= kHugePage ? kHugePage : kAlign, bytes_);
  AF_CHECK(data_, "out of memory: {} bytes", bytes_);
  if (bytes_ >= kHugePage) madvise(data_, bytes_, MADV_HUGEPAGE);  // page faults cost a quarter of a step otherwise
}

Buffer::~Buffer() { std::free(data_); }

Buffer::Buffer(Buffer&& other) noexcept
    : device_(other.device_), data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(device_, other.device_), std::swap(data_, other.data_), std::swap(bytes_, other.bytes_);
  return *this;
}

Arena::Arena(const Device& device, std::string name, std::size_t limit) : device_(device), name_(std::move(name)), limit_(limit) {}

Tensor Arena::tensor(const Shape& shape, DType dtype) {
  std::size_t bytes = round_up(std::max<std::size_t>(std::size_t(shape.numel()) * size_of(dtype), 1), kAlign);
  AF_CHECK(!limit_ || used_ + bytes <= limit_, "{}: {} bytes asked for, {} in use, {} allowed", name_, bytes, used_, limit_);
  while (current_ < blocks_.size() && blocks_[current_].offset + bytes > blocks_[current_].buffer.bytes()) {
    if (++current_ < blocks_.size()) blocks_[current_].offset = 0;
  }
  if (current_ == blocks_.size()) blocks_.push_back({Buffer(device_, std::max({bytes, capacity(), kFirstBlock})), 0});
  Block& block = blocks_[current_];
  void* data = static_cast<char*>(block.buffer.data()) + block.offset;
  block.offset += bytes;
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  return Tensor(data, dtype, shape);
}

void Arena::reset() {
  if (blocks_.size() > 1) {  // merge: the next round fits one block
    blocks_.clear();
    blocks_.push_back({Buffer(device_, peak_), 0});
  }
  if (!blocks_.empty()) blocks_[0].offset = 0;
  current_ = used_ = 0;
}

std::size_t Arena::capacity() const {
  std::size_t bytes = 0;
  for (const Block& block : blocks_) bytes += block.buffer.bytes();
  return bytes;
}

Arena::Scope::Scope(Arena& arena)
    : arena_(arena), block_(arena.current_), offset_(arena.current_ < arena.blocks_.size() ? arena.blocks_[arena.current_].offset : 0), used_(arena.used_) {}

Arena::Scope::~Scope() {
  arena_.current_ = block_;
  arena_.used_ = used_;
  if (block_ < arena_.blocks_.size()) arena_.blocks_[block_].offset = offset_;
  if (used_ == 0 && arena_.blocks_.size() > 1) arena_.reset();
}

}  // namespace af
