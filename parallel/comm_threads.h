// Ranks as threads of one process: for tests, and the quickest way to try a layout.
#pragma once
#include <functional>

#include "parallel/comm.h"
#include "parallel/comm_fault.h"

namespace af {

struct ThreadOptions {
  CommOptions comm;
  CommFault fault;
};

// Runs f(world) on n threads. If one throws, what the others wait for throws within milliseconds, and the first error is
// thrown here (a UserError or an InternalError) with "rank R: " before its message.
void run_ranks(int n, const ThreadOptions& options, const std::function<void(const Comm& world)>& f);

}  // namespace af
