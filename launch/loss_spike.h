// Loss spikes: a step whose lm loss is far above those before. The run goes back to a checkpoint from before the samples that did it
// and goes on behind them, as PaLM did by hand (Chowdhery et al. 2022, section 5.1). All of it follows from the losses and the
// checkpoints' contents, so that every rank, layout and restart does the same.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/json.h"
#include "data/stream_state.h"

namespace af {

struct LossSpike {
  std::string stage;
  std::int64_t iteration = 0;         // whose loss it was
  double lm_loss = 0, median = 0;     // and that of the losses before
  std::int64_t steps = 0;             // whose samples are left out: this one's and those of the steps before it
  std::int64_t first_sequence = 0;    // the first of them, as the run counted until then (PackedSequence::global_index)
  PassedOver samples;                 // their places in the order
  std::int64_t back_to = 0;           // iteration from which the run went on
  bool operator==(const LossSpike&) const = default;
};

// The median of the last `window` losses, if there are so many and `loss` is above `factor` times it. (The median: neither the spike before
// nor the slow fall of the loss moves it much.) A loss that is not finite is no spike but a bad step.
std::optional<double> median_below(const std::vector<double>& losses, double loss, double factor, std::int64_t window);

// What the step that took the sequences [first, first + batch) and the steps before it, `steps` in all, were made of.
LossSpike spike_of(const StreamState& stream, std::int64_t first, std::int64_t batch, std::int64_t steps);

Json to_json(const LossSpike& spike);
LossSpike loss_spike_from(const JsonView& json);

}  // namespace af
