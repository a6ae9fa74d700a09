// One synthesized document and what is known of it: a line of JSON that 'af_data tokenize' reads.
//   {"id":..,"kind":"fas_planning"|"fas_reasoning"|"has","style":..,"entities":[..],"segments":[{"role":"user","text":".."},..],
//    "answer":"..","decisions":[{"segment":3,"options":4,"chosen":2}],"outcome":true,"teacher":"offline"}
// The document is the concatenation of the segments' texts, tokenized as one text; a token has the role of the segment that holds
// its first byte. `outcome` is absent where it is not known.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/segments.h"

namespace af {

class Json;
class JsonView;

using SampleSegment = RoleText;

struct Decision {
  int segment;  // index of the segment that says it, "I will choose option 2\n"
  int options;  // how many there were
  int chosen;   // 1 ... options: where the original step stands
  bool operator==(const Decision&) const = default;
};

struct Sample {
  std::string id, kind, style;
  std::vector<std::string> entities;
  std::vector<SampleSegment> segments;
  std::string answer;
  std::vector<Decision> decisions;
  std::optional<bool> outcome;
  std::string teacher;
  bool operator==(const Sample&) const = default;
};

Json to_json(const Sample& sample);
std::string to_json_line(const Sample& sample);  // ends with \n
// UserError that names the member: an unknown role, a decision about a segment that is not there or that is no decision.
Sample sample_from(const JsonView& json);
std::string text_of(const Sample& sample);  // all segments

Role role_from(std::string_view name, const std::string& where);  // UserError

// Appends an agent's step as segments: thought, action, answer by its tags (data/chat.h).
void append_step(std::vector<SampleSegment>& segments, std::string_view step);

}  // namespace af
