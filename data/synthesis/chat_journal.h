// Every answer that a teacher has given, so that a run which is killed and started again asks for none of them twice. A file of
// JSON lines that is only appended to:
//   {"journal":"af_synth","version":1}
//   {"key":"64 hexadecimal digits","purpose":"fas.question","text":"...","prompt_tokens":9,"completion_tokens":7,"length_limited":false,
//    "sum":"XXH3 of the line's bytes before this member"}   (all in one line)
// A process that is killed loses no line that append() has returned from; a machine that loses power, those of the last second.
// In memory: 40 bytes an answer; texts stay in the file.
#pragma once
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "data/synthesis/teacher.h"

namespace af {

class ChatJournal {
 public:
  // Opens or creates it. A last line that was not written to its end is cut off. UserError where another process has it open
  // or where it is no journal.
  explicit ChatJournal(const std::string& path);
  ~ChatJournal();
  ChatJournal(const ChatJournal&) = delete;

  // By any number of threads. The key is sha256_hex() of the request's body.
  std::optional<ChatReply> find(const std::string& key) const;
  void append(const std::string& key, const std::string& purpose, const ChatReply& reply);  // UserError where the disk is full

  std::int64_t size() const;                               // answers
  std::int64_t damaged_lines() const { return damaged_; }  // found at the opening: not taken for answers, left where they are
  const std::string& path() const { return path_; }

 private:
  struct Place {
    std::int64_t begin, bytes;  // of the line, without its end
  };
  void take_over(std::int64_t file_bytes);
  void write_all(std::string_view line);
  std::string read(Place place) const;

  std::string path_;
  int descriptor_;
  std::int64_t end_ = 0, damaged_ = 0;
  mutable std::mutex mutex_;
  std::unordered_map<std::uint64_t, Place> places_;  // by the key's first 64 bits; the line itself tells the whole key
  std::chrono::steady_clock::time_point synced_;
};

}  // namespace af
