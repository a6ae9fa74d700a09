// The files that a command of af_data is to read: names and patterns become sources.
#pragma once
#include <string>
#include <vector>

#include "data/text_blocks.h"

namespace af {

// A name that no file has, but with *, ? or [...], stands for the files that it matches, in the order of their names; UserError
// where there is none. Any other name stands for itself.
std::vector<std::string> files_matching(const std::string& input);

// Kind by ending (.jsonl, .ndjson, .json or .txt, .md, each also with .gz or .zst). All problems at once (UserError).
std::vector<TextSource> text_sources(const std::vector<std::string>& inputs);

}  // namespace af
