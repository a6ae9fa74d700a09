#include "data/file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/error.h"

namespace af {
namespace {

struct Descriptor {
  explicit Descriptor(int number) : number(number) {}
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
  Descriptor(const Descriptor&) = delete;
  int number;
};

[[noreturn]] void failed(const std::string& path, const char* what) { user_error("{}: cannot {}: {}", path, what, std::strerror(errno)); }

}  // namespace

void make_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) user_error("{}: cannot be created: {}", path, error.message());
}

void make_empty_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);  // where it cannot be, the next says why
  make_folder(path);
}

void check_output(const std::string& path, const std::vector<std::string>& inputs) {
  namespace fs = std::filesystem;
  if (path.empty()) return;
  std::error_code error;
  const fs::path folder = fs::path(path).parent_path();
  if (!folder.empty() && !fs::is_directory(folder, error)) user_error("{}: there is no folder {}", path, folder.string());
  if (fs::is_directory(path, error)) user_error("{}: is a folder", path);
  if (!fs::exists(path, error)) return;
  if (!fs::is_regular_file(path, error)) user_error("{}: is no ordinary file, and a new file would take its place", path);
  for (const std::string& input : inputs)
    if (fs::equivalent(input, path, error)) user_error("{}: is the input itself; give another file to write to", path);
}

std::string read_file(const std::string& path) {
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.number < 0) failed(path, "open it");
  std::string contents;
  char buffer[1 << 16];
  for (;;) {
    ssize_t n = ::read(file.number, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) failed(path, "read it");
    if (n == 0) return contents;
    contents.append(buffer, std::size_t(n));
  }
}

void write_file(const std::string& path, std::string_view contents) {
  Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (file.number < 0) failed(path, "create it");
  while (!contents.empty()) {
    ssize_t n = ::write(file.number, contents.data(), contents.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) failed(path, "write it");
    contents.remove_prefix(std::size_t(n));
  }
  if (::fsync(file.number) != 0) failed(path, "write it to the disk");
}

void sync_folder(const std::string& path) {
  Descriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.number < 0 || ::fsync(folder.number) != 0) failed(path, "write the folder to the disk");
}

}  // namespace af
