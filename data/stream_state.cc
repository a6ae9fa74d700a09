#include "data/stream_state.h"

#include "core/error.h"

namespace af {

void StreamState::begin_mix() {
  sequences_since_mix_change = 0;
  for (SourceLedger& source : sources) source.sequences_in_mix = 0;
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
    entry.set("dataset_tokens", source.dataset_tokens);
    entry.set("dataset_documents", source.dataset_documents);
    sources.push_back(std::move(entry));
  }
  Json json;
  json.set("sequences_since_mix_change", state.sequences_since_mix_change);
  json.set("consumed_sequences", state.consumed_sequences);
  json.set("sources", std::move(sources));
  return json;
}

StreamState stream_state_from(const JsonView& json) {
  auto count = [](const JsonView& from, std::string_view key) {
    std::int64_t value = from[key].integer();
    if (value < 0) user_error("{} must not be negative", from[key].where());
    return value;
  };
  StreamState state{count(json, "sequences_since_mix_change"), count(json, "consumed_sequences"), {}};
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
    source.dataset_tokens = count(entry, "dataset_tokens");
    source.dataset_documents = count(entry, "dataset_documents");
    state.sources.push_back(std::move(source));
  }
  return state;
}

}  // namespace af
