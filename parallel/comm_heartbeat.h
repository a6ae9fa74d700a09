// A sign of life from every rank to the next one (the last one's goes to rank 0): a tiny message each second from the engine's thread,
// whatever the program computes meanwhile. So a rank that is stopped, or whose host or network is gone, is found although no
// operation waits for it, and long before one is late. The messages are no rank's payload: they are in no count, record or trace.
//
// What counts is not the time that has passed but the looks of this rank: a look adds what has passed since the last one, and at
// most kMostPerLook. Where a machine has so much to do that threads wait for seconds, or all ranks were stopped and go on, the
// one that looks has waited as well, and the limit moves as far away.
#pragma once
#include <cstdint>

#include "parallel/comm_transport.h"

namespace af::comm {

class Heartbeat {
 public:
  static constexpr std::int64_t kMostPerLook = 200'000'000;  // ns; an engine with nothing to do looks ten times a second
  // seconds: of silence, until look() says so; 0: neither sent nor looked for. Times are in ns of one clock.
  Heartbeat(Transport& transport, double seconds, std::int64_t now, bool silent = false);
  Heartbeat(const Heartbeat&) = delete;
  // To be called again and again. Whether the rank before this one has been silent for too long.
  bool look(std::int64_t now);
  void leave();  // tells the next rank to expect no more: once
  int watched() const { return from_.peer; }
  double silence() const { return double(silence_) * 1e-9; }  // seconds

 private:
  enum Word : std::int32_t { alive = 1, leaving = 2 };
  Transport& transport_;
  const std::int64_t limit_, interval_;  // ns
  bool sends_, watches_;
  std::int32_t said_ = alive, last_said_ = leaving, heard_ = 0;
  Request to_, last_, from_;
  std::int64_t sent_, looked_, silence_ = 0;
};

}  // namespace af::comm
