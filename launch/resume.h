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

// Whether a stage that was trained to its end has more to do now: its length was raised, by an iteration at least. Other batches alone are
// no reason: what they leave over of a length in tokens is not trained on.
bool is_longer(const StageConfig& was, const StageConfig& now);

}  // namespace af
