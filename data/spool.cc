#include "data/spool.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "core/error.h"
#include "data/hash.h"

namespace af {
namespace {

constexpr std::string_view kMagic = "AFSPOOL1";
struct EntryHead {
  std::uint64_t length, checksum;
};

}  // namespace

Spool::Spool(const std::string& path) : path_(path), descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
  if (descriptor_ < 0) user_error("{}: cannot be created: {}", path, std::strerror(errno));
  auto refuse = [&](const std::string& message) {
    ::close(descriptor_);
    throw UserError(message);
  };
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {  // not every file system has locks: without, no protection
    refuse(fmt::format("{}: another process is writing this dataset", path));
  }
  struct stat status;
  AF_CHECK(::fstat(descriptor_, &status) == 0, "{}: {}", path, std::strerror(errno));
  size_ = status.st_size;
  char magic[kMagic.size()];
  const std::size_t present = std::min<std::size_t>(std::size_t(size_), kMagic.size());
  if (!read_exactly(magic, present) || std::string_view(magic, present) != kMagic.substr(0, present)) {
    refuse(fmt::format("{}: is in the way: unfinished work has this name, and this is something else", path));
  }
  if (present < kMagic.size()) size_ = position_ = 0;  // killed as it began
}

Spool::~Spool() { ::close(descriptor_); }

bool Spool::read_exactly(char* out, std::size_t size) {
  while (size > 0) {
    ssize_t n = ::pread(descriptor_, out, size, position_);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw std::runtime_error(fmt::format("{}: reading failed: {}", path_, std::strerror(errno)));
    if (n == 0) return false;
    out += n, size -= std::size_t(n), position_ += n;
  }
  return true;
}

bool Spool::next(std::string& entry) {
  if (appending_) return false;
  const std::int64_t begin = position_;
  EntryHead head;
  if (position_ > 0 && read_exactly(reinterpret_cast<char*>(&head), sizeof head) && head.length <= std::uint64_t(size_ - position_)) {
    entry.resize(head.length);
    if (read_exactly(entry.data(), entry.size()) && hash64(entry, std::uint64_t(begin)) == head.checksum) return true;
  }
  position_ = begin;
  appending_ = true;
  if (::ftruncate(descriptor_, begin) != 0) user_error("{}: cannot be cut: {}", path_, std::strerror(errno));
  if (begin == 0) write_all(kMagic);
  return false;
}

void Spool::write_all(std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t n = ::pwrite(descriptor_, bytes.data(), bytes.size(), position_);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      user_error("{}: cannot be written: {}; what it holds is kept: make room and give the same command again to go on", path_, std::strerror(errno));
    }
    bytes.remove_prefix(std::size_t(n));
    position_ += n;
  }
}

void Spool::append(std::string_view entry) {
  AF_CHECK(appending_, "{}: written before it was read to its end", path_);
  const EntryHead head{entry.size(), hash64(entry, std::uint64_t(position_))};
  write_all({reinterpret_cast<const char*>(&head), sizeof head});
  write_all(entry);
}

void Spool::remove() { std::remove(path_.c_str()); }

}  // namespace af
