#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "core/error.h"
#include "data/file.h"
#include "data/token_dataset.h"

namespace af {
namespace {

constexpr std::int64_t kTokenChunk = 16 << 10, kOffsetChunk = 4 << 10, kRunChunk = 1 << 10;
constexpr std::size_t kBufferedTokens = 256 << 10, kBufferedNumbers = 64 << 10;

}  // namespace

TokenDatasetWriter::TokenDatasetWriter(const std::string& path, TokenDatasetInfo info)
    : path_(path), temporary_path_(path + ".tmp"), info_(std::move(info)), file_(H5File::create(temporary_path_)) {
  AF_CHECK(info_.vocab_size > 0 && info_.vocab_size <= INT32_MAX && info_.eod_token_id < info_.vocab_size, "vocab_size {}, end of document {}",
           info_.vocab_size, info_.eod_token_id);
  file_->set_attribute("/", "format", std::string("af_tokens"));
  file_->set_attribute("/", "version", std::int64_t{1});
  file_->set_attribute("/", "tokenizer_sha256", info_.tokenizer_sha256);
  file_->set_attribute("/", "vocab_size", info_.vocab_size);
  file_->set_attribute("/", "eod_token_id", std::int64_t(info_.eod_token_id));
  file_->set_attribute("/", "source", info_.source);
  token_data_ = file_->create_dataset("/tokens", H5Type::u32, {0}, {kTokenChunk, true, true});
  offset_data_ = file_->create_dataset("/document_offsets", H5Type::i64, {0}, {kOffsetChunk, true, true});
  offsets_.push_back(0);
}

TokenDatasetWriter::~TokenDatasetWriter() {
  if (!file_) return;
  token_data_.reset(), offset_data_.reset(), counted_data_.reset(), role_data_.reset(), file_.reset();
  std::remove(temporary_path_.c_str());
}

void TokenDatasetWriter::add_document(std::span<const std::uint32_t> tokens, std::span<const RoleRun> roles, const std::vector<TokenRange>* counted) {
  AF_CHECK(file_, "{}: written to after close()", path_);
  std::uint32_t largest = 0;
  for (std::uint32_t token : tokens) largest = std::max(largest, token);
  AF_CHECK(largest < info_.vocab_size, "{}: token id {} of a vocabulary of {}", path_, largest, info_.vocab_size);
  const std::int64_t begin = num_tokens_, length = std::int64_t(tokens.size());
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  if (tokens.empty() || tokens.back() != info_.eod_token_id) tokens_.push_back(info_.eod_token_id);
  num_tokens_ += length + (tokens.empty() || tokens.back() != info_.eod_token_id);
  offsets_.push_back(num_tokens_);
  ++num_documents_;

  std::int64_t last = 0;
  for (const RoleRun& run : roles) {
    AF_CHECK(last <= run.begin && run.begin < run.end && run.end <= length, "{}: role run [{}, {}) after {} of {} tokens", path_, run.begin, run.end,
             last, length);
    last = run.end;
    roles_.insert(roles_.end(), {begin + run.begin, begin + run.end, std::int64_t(run.role)});
  }
  if (counted && !std::exchange(masked_, true) && begin > 0) add_counted(0, begin);  // all documents before this one count
  if (masked_ && !counted) add_counted(begin, num_tokens_);
  last = 0;
  if (counted) {
    for (const TokenRange& range : *counted) {
      AF_CHECK(last <= range.begin && range.begin < range.end && range.end <= num_tokens_ - begin, "{}: loss range [{}, {}) after {} of {} tokens",
               path_, range.begin, range.end, last, num_tokens_ - begin);
      last = range.end;
      add_counted(begin + range.begin, begin + range.end);
    }
  }
  if (tokens_.size() >= kBufferedTokens || offsets_.size() >= kBufferedNumbers || roles_.size() >= kBufferedNumbers ||
      counted_.size() >= kBufferedNumbers) {
    flush(false);
  }
}

void TokenDatasetWriter::add_counted(std::int64_t begin, std::int64_t end) {
  if (!counted_.empty() && counted_.back() == begin) {
    counted_.back() = end;
  } else {
    counted_.insert(counted_.end(), {begin, end});
  }
}

void TokenDatasetWriter::flush(bool all) {
  std::size_t whole = all ? tokens_.size() : tokens_.size() / kTokenChunk * kTokenChunk;  // a chunk is written once
  if (whole > 0) token_data_->append_rows(std::int64_t(whole), H5Type::u32, tokens_.data());
  tokens_.erase(tokens_.begin(), tokens_.begin() + std::ptrdiff_t(whole));
  if (!offsets_.empty()) offset_data_->append_rows(std::int64_t(offsets_.size()), H5Type::i64, offsets_.data());
  offsets_.clear();
  if (!roles_.empty()) {
    if (!role_data_) role_data_ = file_->create_dataset("/role_runs", H5Type::i64, {0, 3}, {kRunChunk, true, true});
    role_data_->append_rows(std::int64_t(roles_.size() / 3), H5Type::i64, roles_.data());
    roles_.clear();
  }
  if (masked_ && !counted_data_) counted_data_ = file_->create_dataset("/loss_mask_runs", H5Type::i64, {0, 2}, {kRunChunk, true, true});
  std::size_t closed = counted_.size() / 2 - (!all && !counted_.empty());  // the last range may still grow
  if (closed > 0) {
    counted_data_->append_rows(std::int64_t(closed), H5Type::i64, counted_.data());
    counted_.erase(counted_.begin(), counted_.begin() + std::ptrdiff_t(2 * closed));
  }
}

void TokenDatasetWriter::close() {
  flush(true);
  token_data_.reset(), offset_data_.reset(), counted_data_.reset(), role_data_.reset();
  file_->close();
  if (std::rename(temporary_path_.c_str(), path_.c_str()) != 0) user_error("{}: cannot be renamed to {}", temporary_path_, path_);
  sync_folder(std::filesystem::absolute(path_).parent_path().string());
  file_.reset();
}

}  // namespace af
