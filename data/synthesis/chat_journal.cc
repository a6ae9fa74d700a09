#include "data/synthesis/chat_journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "data/hash.h"
#include "data/json.h"

namespace af {
namespace {

constexpr std::string_view kHead = "{\"journal\":\"af_synth\",\"version\":1}\n";
constexpr std::string_view kKeyBegin = "{\"key\":\"", kKeyEnd = "\",";
constexpr std::size_t kKeyDigits = 64, kPrefix = kKeyBegin.size() + kKeyDigits + kKeyEnd.size();
constexpr std::size_t kSumBytes = 26;  // of ,"sum":"0123456789abcdef"}
constexpr std::chrono::seconds kSyncEvery{1};

std::string sum_of(std::string_view line) { return fmt::format(",\"sum\":\"{:016x}\"}}", hash64(line, 0)); }

bool is_whole(std::string_view line) {
  return line.size() > kSumBytes && line.substr(line.size() - kSumBytes) == sum_of(line.substr(0, line.size() - kSumBytes));
}

std::uint64_t short_key(std::string_view key) {
  std::uint64_t bits = 0;
  std::from_chars(key.data(), key.data() + 16, bits, 16);
  return bits;
}

bool is_key(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

}  // namespace

ChatJournal::ChatJournal(const std::string& path) : path_(path), descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
  if (descriptor_ < 0) user_error("{}: cannot be opened: {}", path, std::strerror(errno));
  try {
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)  // not every file system has locks: without, no protection
      user_error("{}: another process is at work with this journal", path);
    struct stat status;
    AF_CHECK(::fstat(descriptor_, &status) == 0, "{}: {}", path, std::strerror(errno));
    take_over(status.st_size);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

ChatJournal::~ChatJournal() {
  ::fdatasync(descriptor_);
  ::close(descriptor_);
}

// Notes where each line lies; of a line only what tells its key is kept, for a text may be long.
void ChatJournal::take_over(std::int64_t file_bytes) {
  std::vector<char> piece(1 << 20);
  std::string prefix;  // the first bytes of the line
  char last = 0;       // its last byte so far
  std::int64_t begin = 0, at = 0;
  while (at < file_bytes) {
    const ssize_t n = ::pread(descriptor_, piece.data(), piece.size(), at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) user_error("{}: cannot be read: {}", path_, std::strerror(errno));
    if (n == 0) break;
    for (std::string_view rest(piece.data(), std::size_t(n)); !rest.empty();) {
      const std::size_t newline = rest.find('\n'), length = std::min(newline, rest.size());
      prefix.append(rest.substr(0, std::min(length, kPrefix - std::min(kPrefix, prefix.size()))));
      if (length > 0) last = rest[length - 1];
      at += std::int64_t(length);
      rest.remove_prefix(length);
      if (newline == rest.npos) break;
      if (begin == 0) {
        if (prefix != kHead.substr(0, kHead.size() - 1)) user_error("{}: is no journal of af_synth, and is left as it is", path_);
      } else if (prefix.size() == kPrefix && last == '}' && prefix.starts_with(kKeyBegin) && prefix.ends_with(kKeyEnd) &&
                 is_key(prefix.substr(kKeyBegin.size(), kKeyDigits))) {
        places_[short_key(prefix.substr(kKeyBegin.size()))] = {begin, at - begin};
      } else {
        ++damaged_;
      }
      rest.remove_prefix(1);
      begin = ++at;
      prefix.clear();
      last = 0;
    }
  }
  if (begin == 0 && !kHead.starts_with(prefix)) user_error("{}: is no journal of af_synth, and is left as it is", path_);
  if (::ftruncate(descriptor_, begin) != 0) user_error("{}: cannot be cut: {}", path_, std::strerror(errno));
  end_ = begin;
  if (begin == 0) write_all(kHead);
}

// At the end of the file; where it cannot be written whole, nothing of it stays.
void ChatJournal::write_all(std::string_view line) {
  std::int64_t at = end_;
  for (std::string_view rest = line; !rest.empty();) {
    const ssize_t n = ::pwrite(descriptor_, rest.data(), rest.size(), at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int reason = errno;
      if (::ftruncate(descriptor_, end_) != 0) return user_error("{}: cannot be written: {}", path_, std::strerror(reason));
      user_error("{}: cannot be written: {}; what it holds is kept: make room and give the same command again to go on", path_,
                 std::strerror(reason));
    }
    rest.remove_prefix(std::size_t(n));
    at += n;
  }
  end_ = at;
}

std::string ChatJournal::read(Place place) const {
  std::string line(std::size_t(place.bytes), '\0');
  for (std::int64_t done = 0; done < place.bytes;) {
    const ssize_t n = ::pread(descriptor_, line.data() + done, std::size_t(place.bytes - done), place.begin + done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) user_error("{}: cannot be read at byte {}", path_, place.begin + done);
    done += n;
  }
  return line;
}

std::optional<ChatReply> ChatJournal::find(const std::string& key) const {
  Place place;
  {
    std::lock_guard lock(mutex_);
    auto found = places_.find(short_key(key));
    if (found == places_.end()) return std::nullopt;
    place = found->second;
  }
  const std::string text = read(place);
  if (!is_whole(text)) return std::nullopt;  // damaged where the opening did not look: it is asked for again
  const Json json = Json::parse(text, path_);
  const JsonView line(json, path_);
  if (line["key"].string() != key) return std::nullopt;  // two keys with the same first 64 bits
  return ChatReply{line["text"].string(), line["prompt_tokens"].integer(), line["completion_tokens"].integer(), line["length_limited"].boolean()};
}

void ChatJournal::append(const std::string& key, const std::string& purpose, const ChatReply& reply) {
  Json json;
  json.set("key", key);
  json.set("purpose", purpose);
  json.set("text", reply.text);
  json.set("prompt_tokens", reply.prompt_tokens);
  json.set("completion_tokens", reply.completion_tokens);
  json.set("length_limited", reply.length_limited);
  std::string line = json.dump();
  line.pop_back();  // the brace
  line += sum_of(line) + "\n";
  bool sync = false;
  {
    std::lock_guard lock(mutex_);
    const Place place{end_, std::int64_t(line.size()) - 1};
    write_all(line);
    places_[short_key(key)] = place;
    const auto now = std::chrono::steady_clock::now();
    if (now - synced_ >= kSyncEvery) sync = true, synced_ = now;
  }
  if (sync && ::fdatasync(descriptor_) != 0) user_error("{}: cannot be written to the disk: {}", path_, std::strerror(errno));
}

std::int64_t ChatJournal::size() const {
  std::lock_guard lock(mutex_);
  return std::int64_t(places_.size());
}

}  // namespace af
