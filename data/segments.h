// Text in parts of which each has its role: how synthesized documents are written ("segments" of a line of JSON), and how any text
// with roles becomes tokens.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/document.h"
#include "data/tokenizer.h"

namespace af {

class JsonView;

struct RoleText {
  Role role;
  std::string text;
  bool operator==(const RoleText&) const = default;
};

struct TextSegment {  // of a text; from the end of the one before
  std::size_t end;    // in bytes
  Role role;
};

// [{"role": a name of kRoleNames, "text": ...}, ...]; other members are ignored. UserError where one is missing or wrong, or all are empty.
std::vector<RoleText> segments_from(const JsonView& json);
std::optional<Role> role_named(std::string_view name);
std::string all_role_names();  // "other, system, ...", for messages
std::string names_of(const RoleSet& roles);  // "thought,action"

// Appends the tokens of `text`, which is encoder.normalised() and tokenized as one, so that ids do not depend on roles. A token has
// the role of the part that holds its first byte. The parts end with the text.
void encode_with_roles(Encoder& encoder, std::string_view text, std::span<const TextSegment> parts, SpecialTokens specials, Document& out);

// Appends the segments' texts, one after the other, likewise; then the end-of-document token with the last one's role: that it is at
// its end is part of what the last speaker says. UserError where Unicode's normalisation leaves no place between two segments.
void encode_segments(Encoder& encoder, std::span<const RoleText> segments, SpecialTokens specials, Document& out);

// Makes [begin, end) of that role; `begin` is not before the end of the last run.
void mark_role(std::vector<RoleRun>& runs, std::int64_t begin, std::int64_t end, Role role);

}  // namespace af
