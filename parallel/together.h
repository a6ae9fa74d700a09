// Work of each rank by itself (reading, writing) that may fail on some: then it fails on all, with one message.
#pragma once
#include <functional>

#include "parallel/comm.h"

namespace af {

// Calls work() on every rank of the group. Where it threw on any, all throw the error of the first of those (a UserError
// stays one, anything else becomes an InternalError): no rank goes on to wait for one that is gone. work() must not
// communicate, or at least not leave another rank waiting when it throws.
void together(const Comm& group, const std::function<void()>& work);

}  // namespace af
