// Input files as streams of bytes, decompressed on the way, with the SHA-256 of what lies in the file.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "core/error.h"
#include "data/sha256.h"

namespace af {

// By which a file is taken for the same as before.
struct FileStamp {
  std::int64_t bytes = 0, modified_ns = 0;
  bool operator==(const FileStamp&) const = default;
};
FileStamp stamp_of(const std::string& path);  // UserError where it cannot be read or is no regular file

class InputFile {
 public:
  explicit InputFile(const std::string& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;

  std::size_t read(char* out, std::size_t size);  // fewer only at the end; a disk that fails is a std::runtime_error
  const std::string& path() const { return path_; }
  std::int64_t position() const { return position_; }
  std::string sha256() const { return Sha256(hash_).hex(); }  // of what has been read

 private:
  std::string path_;
  int descriptor_;
  std::int64_t position_ = 0;
  Sha256 hash_;
};

// Compressed data that cannot be decompressed: what() is the reason.
struct DamagedData : UserError {
  using UserError::UserError;
};

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  virtual std::size_t read(char* out, std::size_t size) = 0;  // 0: the end. DamagedData
};

enum class Compression { none, gzip, zstd };
Compression compression_of(const std::string& path);  // by its ending: .gz, .zst
// The file must outlive the stream. Several gzip members or zstd frames one after the other are one text.
std::unique_ptr<ByteStream> open_stream(InputFile& file, Compression compression);
std::unique_ptr<ByteStream> open_gzip(InputFile& file);
std::unique_ptr<ByteStream> open_zstd(InputFile& file);

}  // namespace af
