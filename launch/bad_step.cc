#include "launch/bad_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace af {
namespace {

constexpr std::size_t kMostShown = 20;  // documents of a source in the log; the event has all

bool wanted(const SequenceContents& sequence, const std::vector<std::int64_t>& named) {
  return named.empty() || std::find(named.begin(), named.end(), sequence.global_index) != named.end();
}

}  // namespace

std::vector<std::int64_t> bad_sequences(const ParallelModel& model, const std::vector<PackedSequence>& own, std::int64_t micro_batch_size,
                                        std::int64_t first, std::int64_t count) {
  std::vector<double> bad(std::size_t(count), 0);
  const std::vector<double>& losses = model.micro_batch_losses();
  for (std::size_t i = 0; i < own.size(); ++i)
    if (!std::isfinite(losses[i / std::size_t(micro_batch_size)])) bad[std::size_t(own[i].global_index - first)] = 1;
  model.mesh().world.all_reduce(Tensor(bad.data(), DType::f64, {count}), Reduction::max).wait();
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < count; ++i)
    if (bad[std::size_t(i)] > 0) out.push_back(first + i);
  return out;
}

std::string documents_text(const StepContents& contents, const std::vector<std::int64_t>& named) {
  std::map<int, std::set<std::int64_t>> documents;  // by source
  for (const SequenceContents& sequence : contents.sequences)
    if (wanted(sequence, named))
      for (const SequenceContents::Part& part : sequence.parts) documents[sequence.source].insert(part.document);
  std::string text;
  for (const auto& [source, numbers] : documents) {
    text += fmt::format("{}{}: document{} ", text.empty() ? "" : "; ", contents.entry.sources[std::size_t(source)].name, numbers.size() == 1 ? "" : "s");
    const auto end = std::next(numbers.begin(), std::ptrdiff_t(std::min(kMostShown, numbers.size())));
    text += fmt::format("{}", fmt::join(numbers.begin(), end, ", "));
    if (numbers.size() > kMostShown) text += fmt::format(" and {} more", numbers.size() - kMostShown);
  }
  return text;
}

std::vector<JsonLine> documents_json(const StepContents& contents, const std::vector<std::int64_t>& named) {
  std::vector<JsonLine> out;
  for (const SequenceContents& sequence : contents.sequences) {
    if (!wanted(sequence, named)) continue;
    std::vector<JsonLine> documents;
    for (const SequenceContents::Part& part : sequence.parts)
      documents.push_back(JsonLine().add("epoch", part.epoch).add("document", part.document).add("begin", part.begin).add("end", part.end));
    out.push_back(JsonLine()
                      .add("sequence", sequence.global_index)
                      .add("source", contents.entry.sources[std::size_t(sequence.source)].name)
                      .add("documents", documents));
  }
  return out;
}

}  // namespace af
