// Going on with another configuration than the one that the checkpoint was made with: allowed, and said.
#pragma once
#include <string>
#include <vector>

#include "launch/config.h"

namespace af {

struct ConfigChange {
  std::string key, was, now;  // "stages.0.lr.lr"; "" where the key is not there
};
// Every key whose value differs in the resolved configurations, in the order of the new one.
std::vector<ConfigChange> changes(const Config& was, const Config& now);

// How many iterations of `now` the first `iterations` of `was` are, in the unit of its length: a stage of train_tokens trains on so
// many tokens, whatever the sizes of its batches. Rounded down, so that it never trains on fewer.
std::int64_t same_progress(const StageConfig& was, const StageConfig& now, std::int64_t iterations);

}  // namespace af
