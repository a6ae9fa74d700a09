// Token datasets: an HDF5 file of documents as token ids (design: "Contract: files").
//   /tokens            uint32 [N]      all documents one after the other, each ending with the end-of-document token
//   /document_offsets  int64  [D + 1]  document d is tokens [offsets[d], offsets[d + 1])
//   /loss_mask_runs    int64  [R, 2]   optional: the ranges of tokens that count as targets; absent: all do
//   /role_runs         int64  [R, 3]   optional: begin, end, role (data/document.h)
//   attributes         format, version, tokenizer_sha256, vocab_size, eod_token_id, source
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/document.h"
#include "data/hdf5_file.h"

namespace af {

struct TokenDatasetInfo {
  std::string tokenizer_sha256;
  std::int64_t vocab_size = 0;  // every id is below it
  std::uint32_t eod_token_id = 0;
  std::string source;  // where the text is from, for people
};

TokenDatasetInfo read_token_dataset_info(const std::string& path);  // the attributes alone

// Writes a dataset document by document in bounded memory, aside as PATH.tmp, which close() renames. Without close()
// nothing is left.
class TokenDatasetWriter {
 public:
  TokenDatasetWriter(const std::string& path, TokenDatasetInfo info);
  ~TokenDatasetWriter();
  TokenDatasetWriter(const TokenDatasetWriter&) = delete;

  // The end-of-document token is appended where `tokens` does not end with it. Ranges are indices into `tokens`, sorted and
  // disjoint. counted == nullptr: every token counts as a target.
  void add_document(std::span<const std::uint32_t> tokens, std::span<const RoleRun> roles = {}, const std::vector<TokenRange>* counted = nullptr);
  void close();
  std::int64_t num_documents() const { return num_documents_; }
  std::int64_t num_tokens() const { return num_tokens_; }

 private:
  void add_counted(std::int64_t begin, std::int64_t end);
  void flush(bool all);

  std::string path_, temporary_path_;
  TokenDatasetInfo info_;
  std::optional<H5File> file_;
  std::optional<H5Dataset> token_data_, offset_data_, counted_data_, role_data_;
  std::vector<std::uint32_t> tokens_;                    // not yet written, likewise the others
  std::vector<std::int64_t> offsets_, counted_, roles_;  // the last range of counted_ may still grow
  std::int64_t num_documents_ = 0, num_tokens_ = 0;
  bool masked_ = false;  // a document with a mask has come
};

// Sorted disjoint runs [R, columns] in a file, found by position without holding them in memory.
class RunReader {
 public:
  RunReader(H5Dataset data, std::int64_t columns, std::int64_t num_tokens);
  std::int64_t size() const { return data_.rows(); }
  // Calls f(begin, end, row) for every run that overlaps [begin, end), cut to it; row: the run's numbers in the file.
  template <class F>
  void for_each(std::int64_t begin, std::int64_t end, F&& f) {
    for (std::int64_t block = first_block(begin); block < num_blocks(); ++block) {
      load(block);
      for (const std::int64_t* row = rows_.data(); row < rows_.data() + rows_.size(); row += columns_) {
        if (row[0] >= end) return;
        if (row[1] > begin) f(row[0] < begin ? begin : row[0], row[1] > end ? end : row[1], row);
      }
    }
  }

 private:
  std::int64_t num_blocks() const { return std::int64_t(block_begins_.size()); }
  std::int64_t first_block(std::int64_t position);  // the last block whose first run begins at or before `position`
  void load(std::int64_t block);                    // into rows_

  H5Dataset data_;
  std::int64_t columns_, num_tokens_;
  std::vector<std::int64_t> block_begins_;  // begin of each block's first run; -1: not yet looked up
  std::vector<std::int64_t> rows_;          // the block loaded
  std::int64_t loaded_ = -1;
};

// Reads a dataset at random. Opening checks everything but the tokens and runs themselves, so that later reads are safe;
// these are checked as they are read. For one thread at a time.
class TokenDataset {
 public:
  explicit TokenDataset(const std::string& path, std::int64_t cache_bytes = 16 << 20);

  const std::string& path() const { return path_; }
  const TokenDatasetInfo& info() const { return info_; }
  std::int64_t num_documents() const { return std::int64_t(offsets_.size()) - 1; }
  std::int64_t num_tokens() const { return offsets_.back(); }
  const std::vector<std::int64_t>& offsets() const { return offsets_; }  // [D + 1]
  bool has_loss_mask() const { return counted_.has_value(); }
  bool has_roles() const { return roles_.has_value(); }

  void read(std::int64_t begin, std::int64_t count, std::uint32_t* out) const;  // tokens [begin, begin + count)
  // mask[i] = 1 where token begin + i counts as a target; role[i] = its role.
  void read_loss_mask(std::int64_t begin, std::int64_t count, std::uint8_t* mask);
  void read_roles(std::int64_t begin, std::int64_t count, std::uint8_t* roles);

 private:
  friend std::vector<std::string> problems_of_dataset(const std::string& path);
  std::string path_;
  TokenDatasetInfo info_;
  std::vector<std::int64_t> offsets_;
  std::optional<H5Dataset> tokens_;
  std::optional<RunReader> counted_, roles_;
};

// Reads all of it: checksums, ids, ends of documents, runs. What is wrong (the first of each kind); empty: nothing.
// A file that cannot be opened as a dataset throws UserError.
std::vector<std::string> problems_of_dataset(const std::string& path);

}  // namespace af
