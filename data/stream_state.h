// The data ledger: what a checkpoint keeps of the data. A stream begun with it goes on exactly.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/json.h"

namespace af {

// How far a source has been read since the run's beginning, over all stages. `tokens` is the position in its endless stream.
struct SourceLedger {
  std::string name;
  std::int64_t sequences = 0, tokens = 0;
  std::int64_t documents = 0, epochs = 0;                  // finished ones; both follow from `tokens`
  double weight = 0;                                       // in the mix now, divided by the sum; 0: not in the mix, kept for a later stage
  std::int64_t sequences_in_mix = 0;                       // since the mix changed
  std::int64_t dataset_tokens = 0, dataset_documents = 0;  // what was read, to notice another file under the same name
  bool operator==(const SourceLedger&) const = default;
};

struct StreamState {
  std::int64_t sequences_since_mix_change = 0;
  std::int64_t consumed_sequences = 0;
  std::vector<SourceLedger> sources;  // those of the mix in their order, then those of earlier mixes
  void begin_mix();                   // the shares of the mix are counted from here on: at a stage's begin
  bool operator==(const StreamState&) const = default;
};

Json to_json(const StreamState& state);
StreamState stream_state_from(const JsonView& json);  // UserError naming the member that is missing or wrong

}  // namespace af
