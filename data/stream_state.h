// The data ledger: what a checkpoint keeps of the data. A stream begun with it goes on exactly.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/json.h"
#include "data/packing.h"

namespace af {

// A window of a source's stream that best_fit has begun to give (data/source_plan.h), as one layout after the other gave of it.
struct WindowPart {
  Packing packing = Packing::best_fit;
  std::int64_t seq_length = 0;
  std::int64_t sequences = 0;  // given in this layout; the next one is made of what they left
  bool operator==(const WindowPart&) const = default;
};
struct PackingWindow {
  std::int64_t begin = 0;         // position in the stream
  std::vector<WindowPart> parts;  // empty: no window is under way
  bool operator==(const PackingWindow&) const = default;
};

// How far a source has been read since the run's beginning, over all stages. Its documents are one endless stream, epoch after
// epoch. `tokens` of them have been given: all before that position, or, where a window is under way, all before the window
// and some of it.
struct SourceLedger {
  std::string name;
  std::int64_t sequences = 0, tokens = 0;  // tokens without the masked ones
  std::int64_t documents = 0, epochs = 0;  // finished ones, of a window when it is done; both follow from the rest
  PackingWindow window;
  double weight = 0;                                       // in the mix now, divided by the sum; 0: not in the mix, kept for a later stage
  std::int64_t sequences_in_mix = 0;                       // since the mix changed
  std::int64_t padding_in_mix = 0;                         // masked tokens that filled those up
  std::int64_t dataset_tokens = 0, dataset_documents = 0;  // what was read, to notice another file under the same name
  bool operator==(const SourceLedger&) const = default;
};

// Sequences that are not given when it is their turn. They are counted by their place in the order: all since the run's beginning,
// those that were passed over among them.
struct PassedOver {
  std::int64_t begin = 0, count = 0;
  bool operator==(const PassedOver&) const = default;
};

struct StreamState {
  std::int64_t sequences_since_mix_change = 0;
  std::int64_t consumed_sequences = 0;
  std::vector<SourceLedger> sources;    // those of the mix in their order, then those of earlier mixes
  std::vector<PassedOver> passed_over;  // ascending, apart; before and ahead of where the stream stands
  // Where the sequence number `global_index` (PackedSequence) stands in the order.
  std::int64_t place_of(std::int64_t global_index) const;
  void pass_over(std::int64_t begin, std::int64_t end);  // places, none of them given yet
  void forget_ahead();                                   // what would be passed over from here on is given
  void begin_mix();                   // the shares of the mix are counted from here on: at a stage's begin
  std::int64_t padding() const;       // masked tokens given since the mix changed
  bool operator==(const StreamState&) const = default;
};

const char* name_of(Packing packing);        // as in YAML
Packing packing_from(const JsonView& json);  // UserError where it is none
Json to_json(const StreamState& state);
StreamState stream_state_from(const JsonView& json);  // UserError naming the member that is missing or wrong

}  // namespace af
