#include "data/stream_state.h"

#include <algorithm>

#include "core/error.h"

namespace af {

void StreamState::begin_mix() {
  sequences_since_mix_change = 0;
  for (SourceLedger& source : sources) source.sequences_in_mix = 0, source.padding_in_mix = 0;
}

std::int64_t StreamState::padding() const {
  std::int64_t sum = 0;
  for (const SourceLedger& source : sources) sum += source.padding_in_mix;
  return sum;
}

std::int64_t StreamState::place_of(std::int64_t global_index) const {
  std::int64_t place = global_index;
  for (const PassedOver& range : passed_over)
    if (place >= range.begin) place += range.count;
  return place;
}

void StreamState::pass_over(std::int64_t begin, std::int64_t end) {
  std::vector<PassedOver> all;
  for (const PassedOver& range : passed_over) {
    if (range.begin > end || range.begin + range.count < begin) {
      all.push_back(range);
    } else {  // they touch: one range
      begin = std::min(begin, range.begin);
      end = std::max(end, range.begin + range.count);
    }
  }
  all.push_back({begin, end - begin});
  std::sort(all.begin(), all.end(), [](const PassedOver& a, const PassedOver& b) { return a.begin < b.begin; });
  passed_over = std::move(all);
}

void StreamState::forget_ahead() {
  std::int64_t place = consumed_sequences;  // a range that begins right here is ahead
  std::size_t behind = 0;
  while (behind < passed_over.size() && place > passed_over[behind].begin) place += passed_over[behind++].count;
  passed_over.resize(behind);
}

namespace {

std::int64_t count(const JsonView& from, std::string_view key) {
  std::int64_t value = from[key].integer();
  if (value < 0) user_error("{} must not be negative", from[key].where());
  return value;
}

Json to_json(const PackingWindow& window) {
  Json parts = Json::Array{}, json;
  for (const WindowPart& part : window.parts) {
    Json entry;
    entry.set("packing", name_of(part.packing));
    entry.set("seq_length", part.seq_length);
    entry.set("sequences", part.sequences);
    parts.push_back(std::move(entry));
  }
  json.set("begin", window.begin);
  json.set("parts", std::move(parts));
  return json;
}

PackingWindow window_from(const JsonView& json) {
  PackingWindow window{count(json, "begin"), {}};
  JsonView parts = json["parts"];
  for (std::size_t i = 0; i < parts.size(); ++i) {
    WindowPart part{packing_from(parts[i]["packing"]), count(parts[i], "seq_length"), count(parts[i], "sequences")};
    if (part.seq_length == 0 || part.seq_length > INT32_MAX) user_error("{} must be from 1 to {}", parts[i]["seq_length"].where(), INT32_MAX);
    window.parts.push_back(part);
  }
  return window;
}

}  // namespace

const char* name_of(Packing packing) { return packing == Packing::sequential ? "sequential" : "best_fit"; }

Packing packing_from(const JsonView& json) {
  for (Packing packing : {Packing::sequential, Packing::best_fit}) {
    if (json.string() == name_of(packing)) return packing;
  }
  user_error("{}: expected sequential or best_fit, found {}", json.where(), json.string());
}

Json to_json(const StreamState& state) {
  Json sources = Json::Array{};
  for (const SourceLedger& source : state.sources) {
    Json entry;
    entry.set("name", source.name);
    entry.set("sequences", source.sequences);
    entry.set("tokens", source.tokens);
    entry.set("documents", source.documents);
    entry.set("epochs", source.epochs);
    entry.set("weight", source.weight);
    entry.set("sequences_in_mix", source.sequences_in_mix);
    entry.set("padding_in_mix", source.padding_in_mix);
    if (!source.window.parts.empty()) entry.set("window", to_json(source.window));
    entry.set("dataset_tokens", source.dataset_tokens);
    entry.set("dataset_documents", source.dataset_documents);
    sources.push_back(std::move(entry));
  }
  Json json;
  json.set("sequences_since_mix_change", state.sequences_since_mix_change);
  json.set("consumed_sequences", state.consumed_sequences);
  json.set("sources", std::move(sources));
  if (!state.passed_over.empty()) {
    Json ranges = Json::Array{};
    for (const PassedOver& range : state.passed_over) {
      Json entry;
      entry.set("begin", range.begin);
      entry.set("count", range.count);
      ranges.push_back(std::move(entry));
    }
    json.set("passed_over", std::move(ranges));
  }
  return json;
}

StreamState stream_state_from(const JsonView& json) {
  StreamState state{count(json, "sequences_since_mix_change"), count(json, "consumed_sequences"), {}, {}};
  JsonView sources = json["sources"];
  for (std::size_t i = 0; i < sources.size(); ++i) {
    JsonView entry = sources[i];
    SourceLedger source;
    source.name = entry["name"].string();
    source.sequences = count(entry, "sequences");
    source.tokens = count(entry, "tokens");
    source.documents = count(entry, "documents");
    source.epochs = count(entry, "epochs");
    source.weight = entry["weight"].number();
    source.sequences_in_mix = count(entry, "sequences_in_mix");
    source.padding_in_mix = count(entry, "padding_in_mix");
    if (entry.has("window")) source.window = window_from(entry["window"]);
    source.dataset_tokens = count(entry, "dataset_tokens");
    source.dataset_documents = count(entry, "dataset_documents");
    state.sources.push_back(std::move(source));
  }
  const std::size_t ranges = json.has("passed_over") ? json["passed_over"].size() : 0;
  for (std::size_t i = 0; i < ranges; ++i) {
    const JsonView entry = json["passed_over"][i];
    const PassedOver range{count(entry, "begin"), count(entry, "count")};
    if (i > 0 && range.begin - state.passed_over.back().begin < state.passed_over.back().count) user_error("{} overlaps the one before", entry.where());
    state.passed_over.push_back(range);
  }
  return state;
}

}  // namespace af
