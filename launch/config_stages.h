// The list `stages` of the configuration.
#pragma once
#include "launch/config.h"
#include "launch/config_fields.h"

namespace af {

// What a stage does not name is what the sections of the same names at the top say: these must have been described before.
void describe_stages(Fields& f, Config& config);

}  // namespace af
