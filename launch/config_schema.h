// The one description of the configuration: sections, keys, ranges, and the checks that need more than one key.
#pragma once
#include "launch/config.h"
#include "launch/config_fields.h"

namespace af {

// Walks the whole configuration: a reader fills it (model.hf_config is read too), a writer prints it.
void describe(Fields& f, Config& config);

}  // namespace af
