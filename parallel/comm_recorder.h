// The flight recorder: a rank's last operations in a memory-mapped file, which the system keeps whatever ends the process.
// The file is a RecorderHead and `capacity` FlightRecords; operation `number` stands at number % capacity.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "parallel/comm.h"

namespace af {

struct FlightRecord {
  enum class State : std::uint8_t { empty, started, done, failed };
  static constexpr int kMostMissing = 14;
  std::uint64_t number = 0;           // of this rank's operations
  std::uint64_t sequence = 0;         // in the group; of messages: between the two ranks
  std::int64_t begun = 0, ended = 0;  // ns since 1970
  std::int64_t elements = 0;
  std::int32_t group = 0, group_size = 0, peer = 0;  // peer: of messages, and the root of a broadcast; world rank
  CommKind kind = CommKind::barrier;
  DType dtype = DType::f32;
  Axis axis = Axis::world;
  State state = State::empty;
  std::int32_t missing_count = 0;           // of an operation older than 20 ms: ranks from which nothing has come
  std::int32_t missing[kMostMissing] = {};  // the first of them, world ranks
  std::string str(std::int64_t now) const;  // "all_reduce #5 on axis tp (started 3.2 s before, waits for ranks 1, 3)"
};

class FlightRecorder {
 public:
  // The file is made anew. One that cannot be made is a UserError.
  FlightRecorder(const std::string& path, int rank, int capacity = 256);
  ~FlightRecorder();
  FlightRecorder(const FlightRecorder&) = delete;
  FlightRecord& at(std::uint64_t number);

  static std::string path_of(const std::string& directory, int rank) { return directory + "/rank-" + std::to_string(rank) + ".flight"; }

 private:
  void* map_ = nullptr;
  std::size_t bytes_ = 0;
  int capacity_;
};

// The records of a file, the oldest first; none where it is not there, or is no recorder's.
std::vector<FlightRecord> read_flight_records(const std::string& path);

}  // namespace af
