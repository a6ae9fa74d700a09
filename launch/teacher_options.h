// How a command reaches a teacher behind an endpoint.
#pragma once
#include <vector>

#include "data/synthesis/endpoint_teacher.h"
#include "launch/arguments.h"

namespace af {

// --endpoint URL, --model NAME, --api-key-env NAME, --concurrency N, ...
std::vector<Option> connection_options();

// As they were given, with the key from the environment; failed attempts are told on stderr, some of them. The journal is left to the caller.
// UserError where an option is wrong or missing.
EndpointOptions connection_from(const Arguments& arguments);

// --concurrency: as many threads are to call chat().
int concurrency_of(const Arguments& arguments);

}  // namespace af
