// A file that grows by whole pieces, a line or a record each: of a piece all is there, or nothing.
#pragma once
#include <deque>
#include <string>
#include <string_view>

namespace af {

class AppendFile {
 public:
  // UserError where it cannot be written.
  explicit AppendFile(const std::string& path);
  ~AppendFile();  // what waits has a last chance
  AppendFile(const AppendFile&) = delete;
  const std::string& path() const { return path_; }
  // In the file when it returns, behind all before it; where the disk does not take it (it is full), in memory until a later call finds room.
  void append(std::string_view piece);
  // Why pieces wait; "": none does.
  const std::string& error() const { return error_; }

 private:
  std::string path_, error_;
  int descriptor_;
  std::deque<std::string> waiting_;
};

}  // namespace af
