#include "data/synthesis/sample.h"

#include <fmt/format.h>


#include "core/error.h"
#include "data/chat.h"
#include "data/json.h"

namespace af {
namespace {

int small_integer(const JsonView& json, std::int64_t least, std::int64_t most) {
  const std::int64_t value = json.integer();
  if (value < least || value > most) user_error("{}: {} is not in {} ... {}", json.where(), value, least, most);
  return int(value);
}

constexpr int kMostOptions = 1 << 20;

}  // namespace

Json to_json(const Sample& sample) {
  Json json;
  json.set("id", sample.id);
  json.set("kind", sample.kind);
  json.set("style", sample.style);
  Json::Array entities(sample.entities.begin(), sample.entities.end());
  json.set("entities", std::move(entities));
  Json::Array segments;
  for (const SampleSegment& segment : sample.segments) {
    segments.push_back(Json::Object{{"role", kRoleNames[std::size_t(segment.role)]}, {"text", segment.text}});
  }
  json.set("segments", std::move(segments));
  json.set("answer", sample.answer);
  Json::Array decisions;
  for (const Decision& decision : sample.decisions) {
    decisions.push_back(Json::Object{{"segment", decision.segment}, {"options", decision.options}, {"chosen", decision.chosen}});
  }
  json.set("decisions", std::move(decisions));
  if (sample.outcome) json.set("outcome", *sample.outcome);
  json.set("teacher", sample.teacher);
  return json;
}

std::string to_json_line(const Sample& sample) { return to_json(sample).dump() + "\n"; }

Role role_from(std::string_view name, const std::string& where) {
  const std::optional<Role> role = role_named(name);
  if (!role) user_error("{}: '{}' is no role; there are: {}", where, name, all_role_names());
  return *role;
}

Sample sample_from(const JsonView& json) {
  Sample sample{json["id"].string(),     json["kind"].string(), json["style"].string(), {}, {}, json["answer"].string(), {}, {},
                json["teacher"].string()};
  const JsonView entities = json["entities"], segments = json["segments"], decisions = json["decisions"];
  for (std::size_t i = 0; i < entities.size(); ++i) sample.entities.push_back(entities[i].string());
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const JsonView role = segments[i]["role"];
    sample.segments.push_back({role_from(role.string(), role.where()), segments[i]["text"].string()});
  }
  if (sample.segments.empty()) user_error("{}: there are no segments", segments.where());
  for (std::size_t i = 0; i < decisions.size(); ++i) {
    const JsonView decision = decisions[i];
    const int segment = small_integer(decision["segment"], 0, std::int64_t(sample.segments.size()) - 1);
    const int options = small_integer(decision["options"], 1, kMostOptions);
    sample.decisions.push_back({segment, options, small_integer(decision["chosen"], 1, options)});
    if (sample.segments[std::size_t(segment)].role != Role::decision) {
      user_error("{}: segment {} is no decision but {}", decision["segment"].where(), segment,
                 kRoleNames[std::size_t(sample.segments[std::size_t(segment)].role)]);
    }
  }
  if (json.has("outcome")) sample.outcome = json["outcome"].boolean();
  return sample;
}

std::string text_of(const Sample& sample) {
  std::string text;
  for (const SampleSegment& segment : sample.segments) text += segment.text;
  return text;
}

void append_step(std::vector<SampleSegment>& segments, std::string_view step) {
  std::size_t begin = 0;
  for (const TextSegment& part : assistant_segments(step)) {
    segments.push_back({part.role, std::string(step.substr(begin, part.end - begin))});
    begin = part.end;
  }
}

}  // namespace af
