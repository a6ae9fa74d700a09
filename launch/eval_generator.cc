#include "launch/eval_generator.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "core/random.h"
#include "models/decoder.h"

namespace af {

struct Generator::Slot {
  int sequence;
  std::optional<Episode> episode;
  const Task* task = nullptr;
};

// The slots' pending tokens through the model, and for each what it writes next.
void Generator::forward(Decoder& decoder, std::vector<Slot*> slots) {
  const auto begin = std::chrono::steady_clock::now();
  std::vector<Decoder::Piece> pieces;
  std::vector<std::int32_t> rows;
  std::int32_t tokens = 0;
  for (const Slot* slot : slots) {
    pieces.push_back({slot->sequence, slot->episode->pending()});
    tokens += std::int32_t(pieces.back().tokens.size());
    rows.push_back(tokens - 1);
  }
  Arena::Scope scope(model_.context().scratch);
  const Tensor logits = model_.context().scratch.tensor({std::int64_t(slots.size()), model_.config().vocab_size}, decoder.accumulator());
  decoder.logits(pieces, rows, logits);
  const bool decoding = tokens == std::int32_t(slots.size());
  for (std::size_t i = 0; i < slots.size(); ++i) {
    Episode& episode = *slots[i]->episode;
    episode.seen();
    const std::span<const float> row(logits.as<float>() + std::int64_t(i) * logits.stride, std::size_t(std::min(vocabulary_, logits.cols())));
    const std::vector<WeightedToken> likely = distribution(row, episode.tokens(), settings_.sampling);
    episode.write(draw(likely, random_uniform(settings_.seed, slots[i]->task->stream, std::uint64_t(episode.written()))));
  }
  (decoding ? rates_.decode_tokens : rates_.prefill_tokens) += tokens;
  (decoding ? rates_.decode_seconds : rates_.prefill_seconds) += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void Generator::run(std::vector<Task> tasks) {
  const int count = int(std::min<std::int64_t>(settings_.batch, std::int64_t(tasks.size())));
  if (count == 0) return;
  Decoder decoder(model_.model(), model_.context(), std::vector<std::int64_t>(std::size_t(count), settings_.context));
  std::vector<Slot> slots;
  for (int i = 0; i < count; ++i) slots.push_back({i, std::nullopt, nullptr});
  std::size_t next = 0;
  const auto tend = [&](Slot& slot) {  // ends what has ended, begins what comes next
    for (;;) {
      if (slot.episode) {
        Episode& episode = *slot.episode;
        const bool full = episode.written() >= settings_.max_tokens || std::int64_t(episode.tokens().size()) > settings_.context;
        if (episode.end() == Episode::End::none && full) episode.stop_for_length();
        if (episode.end() == Episode::End::none) return;
        slot.task->done(episode);
        slot.episode.reset();
      }
      if (next == tasks.size()) return;
      slot.task = &tasks[next++];
      slot.episode.emplace(slot.task->begin());
      decoder.truncate(slot.sequence, 0);
    }
  };
  for (;;) {
    std::vector<Slot*> filling, running;
    for (Slot& slot : slots) {
      tend(slot);
      if (slot.episode) (slot.episode->pending().size() > 1 ? filling : running).push_back(&slot);
    }
    if (filling.empty() && running.empty()) return;
    // Prompts and responses first, so that then all go on together.
    forward(decoder, filling.empty() ? running : filling);
  }
}

}  // namespace af
