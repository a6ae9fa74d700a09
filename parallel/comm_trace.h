// What CommOptions::trace keeps, as a file for chrome://tracing or Perfetto: a process per rank, a row per axis, and a row
// of the waits. An operation stands from its call to its end; a wait from wait() to its return.
#pragma once
#include <string>

#include "parallel/comm.h"

namespace af {

struct TraceEvent {
  CommKind kind;
  Axis axis;
  std::uint64_t sequence = 0;
  std::int64_t bytes = 0;                                             // sent by this rank
  std::int64_t begun = 0, ended = 0, wait_begun = 0, wait_ended = 0;  // ns since 1970
};

// Collective: all ranks' events so far go to rank 0, which writes one file.
void write_trace(const Comm& world, const std::string& path);

}  // namespace af
