#include "data/byte_stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace af {
namespace {

class PlainStream : public ByteStream {
 public:
  explicit PlainStream(InputFile& file) : file_(file) {}
  std::size_t read(char* out, std::size_t size) override { return file_.read(out, size); }

 private:
  InputFile& file_;
};

}  // namespace

FileStamp stamp_of(const std::string& path) {
  struct stat status;
  if (::stat(path.c_str(), &status) != 0) user_error("{}: cannot be read: {}", path, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) user_error("{}: is {}", path, S_ISDIR(status.st_mode) ? "a folder; name the files in it" : "no regular file");
  return {status.st_size, std::int64_t(status.st_mtim.tv_sec) * 1'000'000'000 + status.st_mtim.tv_nsec};
}

InputFile::InputFile(const std::string& path) : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (descriptor_ < 0) user_error("{}: cannot be read: {}", path, std::strerror(errno));
  ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_SEQUENTIAL);
}

InputFile::~InputFile() { ::close(descriptor_); }

std::size_t InputFile::read(char* out, std::size_t size) {
  std::size_t filled = 0;
  while (filled < size) {
    ssize_t n = ::read(descriptor_, out + filled, size - filled);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw std::runtime_error(fmt::format("{}: reading failed: {}", path_, std::strerror(errno)));
    if (n == 0) break;
    filled += std::size_t(n);
  }
  hash_.update({out, filled});
  position_ += std::int64_t(filled);
  return filled;
}

Compression compression_of(const std::string& path) {
  return path.ends_with(".gz") ? Compression::gzip : path.ends_with(".zst") ? Compression::zstd : Compression::none;
}

std::unique_ptr<ByteStream> open_stream(InputFile& file, Compression compression) {
  if (compression == Compression::gzip) return open_gzip(file);
  if (compression == Compression::zstd) return open_zstd(file);
  return std::make_unique<PlainStream>(file);
}

}  // namespace af
