// A fault on purpose, the same on all ranks: test suites prove with it that they would notice.
#pragma once
#include "parallel/comm.h"

namespace af {

struct CommFault {
  enum class What { none, drop, early_wait, silence };
  // drop: the operation does nothing; early_wait: it is done at once, but begins `delay_ms` later; silence: rank `nth` sends no heartbeat
  What what = What::none;
  Axis axis = Axis::world;
  CommKind kind = CommKind::all_reduce;  // send and receive are one: both ends of the nth message of a pair
  int nth = -1;                          // counted from 0 on each rank (messages: by each pair); -1: all
  int delay_ms = 20;                     // the tensors must live until then
};

}  // namespace af
