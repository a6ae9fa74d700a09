#include "data/append_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace af {
namespace {

// Whether all of it is there; else errno says why.
bool write_all(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(file, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    text.remove_prefix(std::size_t(n));
  }
  return true;
}

}  // namespace

AppendFile::AppendFile(const std::string& path) : path_(path), descriptor_(::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666)) {
  if (descriptor_ < 0) user_error("{}: cannot be written: {}", path, std::strerror(errno));
}

AppendFile::~AppendFile() {
  append("");
  ::close(descriptor_);
}

void AppendFile::append(std::string_view piece) {
  if (!piece.empty()) waiting_.emplace_back(piece);
  for (error_.clear(); !waiting_.empty(); waiting_.pop_front()) {
    const off_t end = ::lseek(descriptor_, 0, SEEK_END);
    if (write_all(descriptor_, waiting_.front())) continue;
    error_ = std::strerror(errno);
    if (::ftruncate(descriptor_, end) != 0) waiting_.emplace_front("\n");  // what is there of it becomes a line of its own
    return;
  }
}

}  // namespace af
