#include "data/block_pipeline.h"

#include <algorithm>

#include "core/error.h"

namespace af {
namespace {

constexpr std::int64_t kInFlightPerThread = 4 << 20;  // bytes of text; their tokens take six times as much
constexpr std::int64_t kLeastCost = 16 << 10;         // of a small file: its record

}  // namespace

BlockPipeline::BlockPipeline(const Tokenizer& tokenizer, const TokenizeOptions& options, std::span<const TextSource> sources, const Position& begin,
                             std::int64_t max_line_bytes, int threads)
    : tokenizer_(tokenizer),
      options_(options),
      sources_(sources),
      begin_(begin),
      max_line_bytes_(max_line_bytes),
      most_in_flight_(kInFlightPerThread * threads),
      unopened_(begin.source),
      wanted_(begin.source, begin.block) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

BlockPipeline::~BlockPipeline() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

// A file that is gone on with is read again up to there, which must be what it was.
std::unique_ptr<BlockReader> BlockPipeline::open(std::int64_t source) const {
  auto reader = std::make_unique<BlockReader>(sources_[std::size_t(source)], source, max_line_bytes_);
  if (source != begin_.source || begin_.block == 0) return reader;
  TextBlock block;
  for (std::int64_t i = 0; i < begin_.block; ++i) reader->next(block);
  if (block.sha256 != begin_.sha256) user_error("{}: is not what it was when the work began", sources_[std::size_t(source)].name);
  return reader;
}

bool BlockPipeline::read_block(std::unique_lock<std::mutex>& lock) {
  // The file that next() waits for may fill all the room, later files only half of it: so there is always a way on.
  std::int64_t source = -1;
  for (auto& [index, reading] : reading_) {
    if (!reading.busy) {
      source = index;
      break;
    }
  }
  if (source < 0) source = unopened_;
  if (source >= std::int64_t(sources_.size()) || in_flight_ >= (source == wanted_.first ? most_in_flight_ : most_in_flight_ / 2)) return false;
  unopened_ = std::max(unopened_, source + 1);
  Reading& reading = reading_[source];
  reading.busy = true;

  lock.unlock();
  TextBlock block;
  std::exception_ptr failure;
  try {
    if (!reading.reader) reading.reader = open(source);
    reading.reader->next(block);
    if (block.last) reading.reader.reset();
  } catch (...) {
    failure = std::current_exception();
  }
  lock.lock();
  changed_.notify_all();
  if (failure) {  // the source stays busy: nobody reads it further
    failures_.emplace(source, failure);
    return true;
  }
  block.last ? void(reading_.erase(source)) : void(reading.busy = false);
  const Place place{source, block.number};
  const std::int64_t cost = std::max(std::int64_t(block.text.size()), kLeastCost);
  cost_[place] = cost;
  in_flight_ += cost;
  read_.emplace(place, std::move(block));
  return true;
}

void BlockPipeline::tokenize_block(std::unique_lock<std::mutex>& lock, BlockTokenizer& tokenizer) {
  auto node = read_.extract(read_.begin());
  lock.unlock();
  FinishedBlock finished;
  std::exception_ptr failure;
  try {
    tokenizer.run(node.mapped(), finished.record);
    finished.bytes = pack(finished.record, token_bytes_for(tokenizer_.vocab_size()));
  } catch (...) {
    failure = std::current_exception();
  }
  node.mapped() = {};
  lock.lock();
  changed_.notify_all();
  if (failure) {
    failures_.emplace(node.key().first, failure);
    in_flight_ -= cost_.extract(node.key()).mapped();
  } else {
    finished_.emplace(node.key(), std::move(finished));
  }
}

void BlockPipeline::work() {
  BlockTokenizer tokenizer(tokenizer_, options_, sources_);
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (!read_.empty()) {
      tokenize_block(lock, tokenizer);
    } else if (!read_block(lock)) {
      changed_.wait(lock);
    }
  }
}

bool BlockPipeline::next(FinishedBlock& block) {
  std::unique_lock lock(mutex_);
  if (wanted_.first >= std::int64_t(sources_.size())) return false;
  changed_.wait(lock, [&] { return finished_.contains(wanted_) || (failures_.contains(wanted_.first) && !cost_.contains(wanted_)); });
  if (!finished_.contains(wanted_)) std::rethrow_exception(failures_.at(wanted_.first));
  auto node = finished_.extract(wanted_);
  block = std::move(node.mapped());
  in_flight_ -= cost_.extract(wanted_).mapped();
  wanted_ = block.record.last ? Place{wanted_.first + 1, 0} : Place{wanted_.first, wanted_.second + 1};
  changed_.notify_all();
  return true;
}

}  // namespace af
