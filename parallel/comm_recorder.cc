#include "parallel/comm_recorder.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>

namespace af {
namespace {
struct RecorderHead {
  char magic[8];  // "AFFLIGHT"
  std::int32_t version, rank, capacity, record_bytes;
};
constexpr std::int32_t kVersion = 1;
}  // namespace

std::string FlightRecord::str(std::int64_t now) const {
  std::string text = fmt::format("{} #{} on axis {}", name_of(kind), sequence, name_of(axis));
  if (kind == CommKind::send) text += fmt::format(" to rank {}", peer);
  if (kind == CommKind::receive) text += fmt::format(" from rank {}", peer);
  if (state == State::done) return fmt::format("{} (done {:.1f} s before)", text, double(now - ended) * 1e-9);
  if (state == State::failed) return text + " (stopped)";
  std::string ranks;
  for (int i = 0; i < std::min(missing_count, kMostMissing); ++i) ranks += (i ? ", " : "") + std::to_string(missing[i]);
  if (missing_count > kMostMissing) ranks += fmt::format(" and {} more", missing_count - kMostMissing);
  return fmt::format("{} (started {:.1f} s before{})", text, double(now - begun) * 1e-9, ranks.empty() ? "" : ", waits for rank " + ranks);
}

FlightRecorder::FlightRecorder(const std::string& path, int rank, int capacity) : capacity_(capacity) {
  bytes_ = sizeof(RecorderHead) + std::size_t(capacity) * sizeof(FlightRecord);
  unlink(path.c_str());  // a reader of the old one keeps it
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  // Its blocks are taken now: a disk that is full later would end the process at a store into the mapping.
  const int error = file < 0 ? errno : posix_fallocate(file, 0, off_t(bytes_));
  if (error) {
    if (file >= 0) close(file);
    user_error("{}: the flight recorder cannot be made: {}", path, std::strerror(error));
  }
  map_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  AF_CHECK(map_ != MAP_FAILED, "{}: no mapping of {} bytes", path, bytes_);
  RecorderHead head = {{'A', 'F', 'F', 'L', 'I', 'G', 'H', 'T'}, kVersion, rank, capacity, sizeof(FlightRecord)};
  std::memcpy(map_, &head, sizeof(head));
  for (int i = 0; i < capacity; ++i) new (&at(std::uint64_t(i))) FlightRecord();
}

FlightRecorder::~FlightRecorder() { munmap(map_, bytes_); }

FlightRecord& FlightRecorder::at(std::uint64_t number) {
  char* records = static_cast<char*>(map_) + sizeof(RecorderHead);
  return reinterpret_cast<FlightRecord*>(records)[number % std::uint64_t(capacity_)];
}

std::vector<FlightRecord> read_flight_records(const std::string& path) {
  std::vector<FlightRecord> records;
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (!file) return records;
  RecorderHead head = {};
  if (std::fread(&head, sizeof(head), 1, file) == 1 && std::memcmp(head.magic, "AFFLIGHT", 8) == 0 && head.version == kVersion &&
      head.record_bytes == sizeof(FlightRecord)) {
    FlightRecord record;
    while (int(records.size()) < head.capacity && std::fread(static_cast<void*>(&record), sizeof(record), 1, file) == 1) records.push_back(record);
  }
  std::fclose(file);
  std::erase_if(records, [](const FlightRecord& r) { return r.state == FlightRecord::State::empty || r.state > FlightRecord::State::failed; });
  std::sort(records.begin(), records.end(), [](const FlightRecord& a, const FlightRecord& b) { return a.number < b.number; });
  return records;
}

}  // namespace af
