// Megatron-LM's indexed datasets: PREFIX.bin holds the token ids, PREFIX.idx where each sequence and document lies.
//   MMIDIDX: "MMIDIDX\0\0", u64 version 1, u8 type, u64 sequences, u64 entries of the document index,
//            i32 sizes[sequences], i64 pointers[sequences] (bytes), i64 document_index[entries], and perhaps i8 modes[sequences]
//   TNTIDX:  "TNTIDX\0\0", u64 version 1, u64 type, u64 element size, u64 sequences, u64 number of sizes, perhaps u64 entries of the
//            document index, i64 dim_offsets[sequences + 1], i64 data_offsets[sequences + 1] (elements), i64 sizes, i64 document_index
//   types    1 uint8, 2 int8, 3 int16, 4 int32, 5 int64, 6 float64, 7 float32 (in TNTIDX 6 float32, 7 float64), 8 uint16
// Document d is sequences [document_index[d], document_index[d + 1]), one after the other. All numbers are little-endian.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/byte_stream.h"

namespace af {

// Reads it from its beginning to its end. Memory: 16 bytes a sequence and document, and the longest document.
class MegatronDataset {
 public:
  explicit MegatronDataset(const std::string& prefix);  // with or without .bin or .idx. UserError, also where the two files do not fit

  const std::string& prefix() const { return prefix_; }
  std::string bin_path() const { return prefix_ + ".bin"; }
  std::string idx_path() const { return prefix_ + ".idx"; }
  std::int64_t num_documents() const { return std::int64_t(document_ends_.size()); }
  std::int64_t num_tokens() const { return document_ends_.empty() ? 0 : document_ends_.back(); }
  const char* type_name() const;
  std::int64_t other_modes() const { return other_modes_; }  // sequences whose mode is not 0 (text)

  // The next document's ids. UserError where one is outside [0, vocab_size).
  void next(std::int64_t vocab_size, std::vector<std::uint32_t>& tokens);
  std::int64_t position() const { return bin_.position(); }  // bytes of PREFIX.bin read
  std::string bin_sha256() const { return bin_.sha256(); }   // of these
  const std::string& idx_sha256() const { return idx_sha256_; }

 private:
  std::string prefix_;
  InputFile bin_;
  int type_ = 0;  // code; see above
  std::int64_t element_bytes_ = 0, other_modes_ = 0, next_ = 0;
  std::vector<std::int64_t> document_ends_;  // in tokens
  std::vector<char> buffer_;
  std::string idx_sha256_;
};

}  // namespace af
