// An append-only file of checksummed entries, from which a killed run goes on: work that is in it is done. The first entry
// says what the work depends on. An entry that was not written to its end, or did not reach the disk, ends what is taken
// over; it is cut off and done again.
//   8 bytes "AFSPOOL1", then for each entry: its length (u64), XXH3 of its bytes with its offset as seed (u64), its bytes
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace af {

class Spool {
 public:
  // Opens or creates it. UserError where another process works with it or where it is no such file.
  explicit Spool(const std::string& path);
  ~Spool();
  Spool(const Spool&) = delete;

  bool next(std::string& entry);        // the next whole entry; false: there is none, from now on append()
  void append(std::string_view entry);  // UserError where the disk is full
  void remove();                        // the work is done, or is not to go on
  const std::string& path() const { return path_; }
  std::int64_t bytes() const { return position_; }

 private:
  bool read_exactly(char* out, std::size_t size);
  void write_all(std::string_view bytes);

  std::string path_;
  int descriptor_;
  std::int64_t position_ = 0, size_ = 0;
  bool appending_ = false;
};

}  // namespace af
