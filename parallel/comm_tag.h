// The tag of a message: 31 bits, what MPI allows.
//   bits 30..28 axis   27..16 group   15..3 sequence number in the group, modulo 8192   2..0 phase
// Groups are numbered at split, so that no rank is in two of one number; two groups of one number share no rank.
// Messages between two ranks with equal tags arrive in the order in which they were sent.
#pragma once
#include <cstdint>

#include "parallel/comm.h"

namespace af::comm {

enum class Phase { header = 0, parts = 1, results = 2, up = 3, down = 4, point_to_point = 5 };
inline constexpr int kMostGroups = (1 << 12) - 1, kSequences = 1 << 13;
inline constexpr int kHeartbeatGroup = kMostGroups;  // of no operation (parallel/comm_heartbeat.h)

constexpr std::int32_t make_tag(Axis axis, int group, std::uint64_t sequence, Phase phase) {
  return std::int32_t(axis) << 28 | group << 16 | std::int32_t(sequence % kSequences) << 3 | std::int32_t(phase);
}
constexpr Axis axis_of(std::int32_t tag) { return Axis(tag >> 28); }
constexpr Phase phase_of(std::int32_t tag) { return Phase(tag & 7); }

}  // namespace af::comm
