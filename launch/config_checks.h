// What a configuration that is right in itself may still get wrong in the world around it.
#pragma once
#include <string>
#include <vector>

#include "launch/config.h"

namespace af {

// The configuration as far as one stage needs it (--stage): without the others, and without `init` where it is not the first. "": all of it.
// UserError where there is no such stage.
Config of_stage(const Config& config, const std::string& name);

// "run.yaml:12:15: stages.0.data.1.path: there is no file x.h5", one for each file or folder that is named and not there.
// Checked before training; a dry run only mentions them.
std::vector<std::string> missing_files(const Config& config);

// What does not fit among the datasets that all stages name, before the first stage begins: unreadable, empty, ids beyond the
// model's vocabulary, made with another tokenizer than the configuration's or than each other, fewer tokens than one sequence.
std::vector<std::string> data_problems(const Config& config);

// What is allowed but seldom meant: sequences longer than max_position_embeddings.
std::vector<std::string> warnings(const Config& config);

}  // namespace af
