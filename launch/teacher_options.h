// The options of a command that asks a teacher behind an endpoint, and the teacher that they describe.
#pragma once
#include <memory>
#include <string>

#include "data/synthesis/endpoint_teacher.h"
#include "launch/arguments.h"

namespace af {

// --endpoint URL, --model NAME, --api-key-env NAME, --concurrency N, ...
void add_endpoint_options(Command& command);

// Requests under way at the same time, as --concurrency says: as many threads are to call chat().
int endpoint_concurrency(const Arguments& arguments);

// Reads the key from the environment. `journal`: the file that holds the answers. Failed attempts are told on stderr, a few of them.
// UserError where an option is wrong or missing.
std::unique_ptr<EndpointTeacher> endpoint_teacher_from(const Arguments& arguments, const std::string& journal);

}  // namespace af
