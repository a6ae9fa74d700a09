#include "launch/checkpoint_stream.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "parallel/placement.h"

namespace af {
namespace {

constexpr std::int64_t kChunkElements = 1 << 20;  // of each state: what the optimizer waits for at most where there is staging memory

}  // namespace

StateStream::StateStream(const ParameterSet& set, Optimizer& optimizer, std::int64_t staging_bytes)
    : optimizer_(optimizer), dtype_(accumulator_of(set.dtype())), staging_limit_(staging_bytes), of_bucket_(set.buckets().size()) {
  for (const StatePiece& piece : pieces_of(set, Held::counted)) {
    table_.add(piece.slab->name, piece.slab->global_shape, piece.where);
    for (std::int64_t begin = piece.offset, end = piece.offset + piece.where.numel(); begin < end;) {
      if (chunks_.empty() || chunks_.back().bucket != piece.bucket || chunks_.back().begin + chunks_.back().count != begin ||
          chunks_.back().count == kChunkElements) {
        of_bucket_[std::size_t(piece.bucket)].push_back(chunks_.size());
        chunks_.push_back({piece.bucket, begin, 0});
      }
      const std::int64_t n = std::min(end - begin, kChunkElements - chunks_.back().count);
      chunks_.back().count += n;
      begin += n;
    }
  }
  if (table_.elements == 0) return;
  optimizer_.set_before_update([this](int bucket, std::int64_t begin, std::int64_t end) { before_update(bucket, begin, end); });
}

StateStream::~StateStream() { optimizer_.set_before_update({}); }

const char* StateStream::live(const Chunk& chunk, int state) const {
  return static_cast<const char*>(optimizer_.state(OptimizerState(state), chunk.bucket).data) + std::size_t(chunk.begin) * size_of(dtype_);
}

ShardInfo StateStream::write(const std::string& path) {
  try {
    ShardWriter writer(path, dtype_, 3, table_);
    for (Chunk& chunk : chunks_) write(chunk, writer, path);
    return writer.finish();
  } catch (...) {
    stop();  // the optimizer shall not wait for what nobody writes
    throw;
  }
}

void StateStream::write(Chunk& chunk, ShardWriter& writer, const std::string& path) {
  const std::size_t bytes = std::size_t(chunk.count) * size_of(dtype_);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return chunk.at != At::being_copied; });
  if (stopped_) user_error("{}: given up", path);
  const bool staged = chunk.at == At::staged;
  chunk.being_written = !staged;
  lock.unlock();
  for (int s = 0; s < 3; ++s) writer.append(s, staged ? chunk.copy.get() + std::size_t(s) * bytes : live(chunk, s), chunk.count);
  lock.lock();
  chunk.at = At::done;
  chunk.being_written = false;
  if (staged) {
    staged_ -= 3 * std::int64_t(bytes);
    if (chunk.count == kChunkElements) spare_.push_back(std::move(chunk.copy));
    else chunk.copy.reset();
  }
  changed_.notify_all();
}

void StateStream::stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

void StateStream::before_update(int bucket, std::int64_t begin, std::int64_t end) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<std::size_t>& chunks = of_bucket_[std::size_t(bucket)];
  auto first = std::partition_point(chunks.begin(), chunks.end(), [&](std::size_t i) { return chunks_[i].begin + chunks_[i].count <= begin; });
  for (; first != chunks.end() && chunks_[*first].begin < end; ++first) {
    Chunk& chunk = chunks_[*first];
    const std::size_t bytes = std::size_t(chunk.count) * size_of(dtype_);
    const std::int64_t all = 3 * std::int64_t(bytes);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopped_ || chunk.at != At::live || (!chunk.being_written && staged_ + all <= staging_limit_); });
    if (stopped_ || chunk.at != At::live) continue;
    chunk.at = At::being_copied;
    staged_ += all;
    if (chunk.count == kChunkElements && !spare_.empty()) chunk.copy = std::move(spare_.back()), spare_.pop_back();
    lock.unlock();
    if (!chunk.copy) chunk.copy = std::make_unique_for_overwrite<char[]>(3 * bytes);
    for (int s = 0; s < 3; ++s) std::memcpy(chunk.copy.get() + std::size_t(s) * bytes, live(chunk, s), bytes);
    lock.lock();
    chunk.at = At::staged;
    changed_.notify_all();
  }
  waited_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace af
