// YAML <-> Config. Strict: unknown keys, wrong types, values out of range and missing keys are errors, and all are
// reported at once, each "file:line:column: what is wrong; what would be right" (overrides: "command line: ...").
#pragma once
#include <string>
#include <vector>

#include "launch/config.h"

namespace af {

// Reads the file, puts the overrides on top ("stages.0.lr.lr=1e-4"; the value is YAML; null takes a key out), reads
// model.hf_config where one is named, and checks everything. Throws one UserError with all messages, one a line.
Config read_config(const std::string& path, const std::vector<std::string>& overrides);
// The same from text; `name` stands for the file in messages.
Config parse_config(const std::string& text, const std::string& name, const std::vector<std::string>& overrides);

// The resolved configuration: every key in force, the model field by field. Parses back to the same Config.
std::string to_yaml(const Config& config);

}  // namespace af
