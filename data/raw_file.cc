#include "data/raw_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace af {
namespace {

[[noreturn]] void failed(const std::string& path, const char* what, int reason) { user_error("{}: cannot {}: {}", path, what, std::strerror(reason)); }

}  // namespace

RawFile::RawFile(const std::string& path, Access access) : RawFile(path, ::open(path.c_str(), (access == Access::read ? O_RDONLY : O_RDWR) | O_CLOEXEC)) {
  if (descriptor_ < 0) failed(path_, "open it", errno);
}

RawFile RawFile::create(const std::string& path) {
  int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) failed(path, "create it", errno);
  return RawFile(path, descriptor);
}

RawFile::~RawFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::int64_t RawFile::size() const {
  struct stat status;
  if (::fstat(descriptor_, &status) != 0) failed(path_, "read its size", errno);
  return status.st_size;
}

void RawFile::read(std::int64_t offset, std::int64_t bytes, void* out) const {
  for (char* to = static_cast<char*>(out); bytes > 0;) {
    const ssize_t n = ::pread(descriptor_, to, std::size_t(bytes), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) failed(path_, "read it", errno);
    if (n == 0) user_error("{}: ends at byte {}, {} more are missing", path_, offset, bytes);
    to += n, offset += n, bytes -= n;
  }
}

void RawFile::write(std::int64_t offset, std::int64_t bytes, const void* data) {
  for (const char* from = static_cast<const char*>(data); bytes > 0;) {
    const ssize_t n = ::pwrite(descriptor_, from, std::size_t(bytes), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) failed(path_, "write it", errno);
    from += n, offset += n, bytes -= n;
  }
}

void RawFile::reserve(std::int64_t bytes) {
  int status;
  do status = ::fallocate(descriptor_, 0, 0, bytes);
  while (status != 0 && errno == EINTR);
  if (status != 0 && errno != EOPNOTSUPP && errno != ENOSYS) failed(path_, "write it", errno);
}

void RawFile::start_sync(std::int64_t offset, std::int64_t bytes) { ::sync_file_range(descriptor_, offset, bytes, SYNC_FILE_RANGE_WRITE); }

void RawFile::sync() {
  if (::fsync(descriptor_) != 0) failed(path_, "write it to the disk", errno);
}

}  // namespace af
