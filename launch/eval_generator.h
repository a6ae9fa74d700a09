// Episodes run side by side: the model continues as many of them as there are slots, one token each at a time; where one has ended the next
// begins. What is drawn depends on the episode and the place in it alone, not on what runs beside it.
#pragma once
#include <functional>
#include <vector>

#include "launch/agent_episode.h"
#include "launch/eval_model.h"
#include "models/sampling.h"

namespace af {

struct GeneratorSettings {
  SamplingSettings sampling;
  std::int64_t max_tokens = 1024;  // that the model writes in an episode
  std::int64_t context = 4096;     // tokens of an episode, at most the model's positions
  std::int64_t batch = 8;          // episodes side by side
  std::uint64_t seed = 1;
};

struct GeneratorRates {
  std::int64_t prefill_tokens = 0, decode_tokens = 0;  // decode: one a sequence and forward
  double prefill_seconds = 0, decode_seconds = 0;
};

class Generator {
 public:
  // vocabulary: ids that the tokenizer has; the model may have more, which are never drawn.
  Generator(EvalModel& model, std::int64_t vocabulary, const GeneratorSettings& settings) : model_(model), vocabulary_(vocabulary), settings_(settings) {}

  struct Task {
    std::function<Episode()> begin;  // the prompt must be shorter than the context
    std::uint64_t stream;            // of random numbers
    std::function<void(const Episode&)> done;
  };
  void run(std::vector<Task> tasks);
  const GeneratorRates& rates() const { return rates_; }

 private:
  struct Slot;
  void forward(class Decoder& decoder, std::vector<Slot*> slots);

  EvalModel& model_;
  std::int64_t vocabulary_;
  GeneratorSettings settings_;
  GeneratorRates rates_;
};

}  // namespace af
