#include "parallel/comm_trace.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "parallel/comm_engine.h"

namespace af {
namespace {

// ts and dur in microseconds since `origin`. tid: the axis; 100 for waits.
void append(std::string& json, int rank, const TraceEvent& e, std::int64_t origin) {
  auto event = [&](const char* prefix, int row, std::int64_t begin, std::int64_t end) {
    json += fmt::format(
        "{}{{\"name\": \"{}{}\", \"cat\": \"{}\", \"ph\": \"X\", \"pid\": {}, \"tid\": {}, \"ts\": {:.3f}, \"dur\": {:.3f}, "
        "\"args\": {{\"axis\": \"{}\", \"seq\": {}, \"bytes\": {}}}}}",
        json.empty() ? "" : ",\n", prefix, name_of(e.kind), name_of(e.axis), rank, row, double(begin - origin) * 1e-3, double(end - begin) * 1e-3,
        name_of(e.axis), e.sequence, e.bytes);
  };
  event("", int(e.axis), e.begun, e.ended);
  event("wait ", 100, e.wait_begun, e.wait_ended);
}

}  // namespace

void write_trace(const Comm& world, const std::string& path) {
  std::vector<TraceEvent> events = world.engine() ? world.engine()->trace_events() : std::vector<TraceEvent>();
  std::int64_t origin = INT64_MIN;  // negated for the reduction: the earliest event of all ranks
  for (const TraceEvent& e : events) origin = std::max(origin, -e.begun);
  world.all_reduce(Tensor(&origin, DType::i64, {1}), Reduction::max);
  std::string json;
  for (const TraceEvent& e : events) append(json, world.rank(), e, -origin);

  std::vector<std::int64_t> sizes(std::size_t(world.size()));
  std::int64_t mine = std::int64_t(json.size() + 3) / 4;
  json.resize(std::size_t(mine) * 4, '\n');
  world.all_gather(Tensor(&mine, DType::i64, {1}), Tensor(sizes.data(), DType::i64, {world.size()}));
  std::vector<std::int64_t> sends(sizes.size()), receives(sizes.size());
  sends[0] = mine;
  std::int64_t all = 0;
  if (world.rank() == 0)
    for (std::int64_t n : sizes) all += n;
  if (world.rank() == 0) receives = sizes;
  std::string merged(std::size_t(all) * 4, ' ');
  world.all_to_all_v(Tensor(json.data(), DType::i32, {mine}), sends, Tensor(merged.data(), DType::i32, {all}), receives);
  if (world.rank() != 0) return;

  std::FILE* file = std::fopen(path.c_str(), "w");
  if (!file) user_error("{}: cannot be written: {}", path, std::strerror(errno));
  std::fputs("{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n", file);
  for (int rank = 0; rank < world.size(); ++rank) {
    fmt::print(file, "{}{{\"name\": \"process_name\", \"ph\": \"M\", \"pid\": {}, \"args\": {{\"name\": \"rank {}\"}}}}", rank ? ",\n" : "", rank,
               rank);
    for (int a = 0; a < kAxes; ++a)
      fmt::print(file, ",\n{{\"name\": \"thread_name\", \"ph\": \"M\", \"pid\": {}, \"tid\": {}, \"args\": {{\"name\": \"{}\"}}}}", rank, a,
                 name_of(Axis(a)));
    fmt::print(file, ",\n{{\"name\": \"thread_name\", \"ph\": \"M\", \"pid\": {}, \"tid\": 100, \"args\": {{\"name\": \"waits\"}}}}", rank);
  }
  std::int64_t begin = 0;
  for (std::int64_t n : sizes) {
    if (n) std::fputs(",\n", file), std::fwrite(merged.data() + begin * 4, 1, std::size_t(n) * 4, file);
    begin += n;
  }
  std::fputs("]}\n", file);
  if (std::fclose(file) != 0) user_error("{}: cannot be written: {}", path, std::strerror(errno));
}

}  // namespace af
