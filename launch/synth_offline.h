// The offline teacher of 'af_synth fas' and 'af_synth has': samples from the facts of a memory, without any server.
#pragma once
#include <vector>

#include "launch/arguments.h"

namespace af {

// What both commands take beside --memory, --output, --count and --seed when --teacher is offline.
std::vector<Option> offline_options();
std::vector<Option> offline_fas_options();
std::vector<Option> offline_has_options();

int run_fas_offline(const Arguments& arguments);  // exit code; UserError
int run_has_offline(const Arguments& arguments);

}  // namespace af
