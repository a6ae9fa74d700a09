// A file read and written at byte offsets, by any number of threads. Errors are UserErrors "FILE: cannot ...: reason".
#pragma once
#include <cstdint>
#include <string>

namespace af {

class RawFile {
 public:
  enum class Access { read, update };  // update: of a file that is there
  RawFile(const std::string& path, Access access);
  static RawFile create(const std::string& path);  // anew, to be updated
  ~RawFile();
  RawFile(RawFile&& other) noexcept : path_(std::move(other.path_)), descriptor_(other.descriptor_) { other.descriptor_ = -1; }
  RawFile& operator=(RawFile&&) = delete;

  const std::string& path() const { return path_; }
  std::int64_t size() const;
  void read(std::int64_t offset, std::int64_t bytes, void* out) const;  // an end before that is an error
  void write(std::int64_t offset, std::int64_t bytes, const void* data);
  // Room for so many bytes is taken now, so that a full disk shows here; without effect where the file system cannot.
  void reserve(std::int64_t bytes);
  // What was written begins its way to the disk, without waiting.
  void start_sync(std::int64_t offset, std::int64_t bytes);
  void sync();  // on the disk when it returns

 private:
  RawFile(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  std::string path_;
  int descriptor_;
};

}  // namespace af
