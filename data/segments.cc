#include "data/segments.h"

#include <algorithm>

#include "core/error.h"
#include "data/json.h"

namespace af {
namespace {

constexpr std::size_t kReach = 256;  // bytes on either side of a border that normalisation may join: longer than any word's accents

// The end of `text`, at a character's beginning.
std::string_view tail(std::string_view text) {
  std::size_t begin = text.size() > kReach ? text.size() - kReach : 0;
  while (begin < text.size() && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) ++begin;
  return text.substr(begin);
}

std::string_view head(std::string_view text) {
  std::size_t end = std::min(text.size(), kReach);
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

}  // namespace

std::optional<Role> role_named(std::string_view name) {
  auto found = std::find(kRoleNames.begin(), kRoleNames.end(), name);
  if (found == kRoleNames.end()) return std::nullopt;
  return Role(found - kRoleNames.begin());
}

std::string all_role_names() {
  std::string names;
  for (const char* name : kRoleNames) names += names.empty() ? name : std::string(", ") + name;
  return names;
}

std::string names_of(const RoleSet& roles) {
  std::string names;
  for (std::size_t i = 0; i < kRoleNames.size(); ++i)
    if (roles.has(Role(i))) names += (names.empty() ? "" : ",") + std::string(kRoleNames[i]);
  return names;
}

std::vector<RoleText> segments_from(const JsonView& json) {
  std::vector<RoleText> segments;
  bool empty = true;
  for (std::size_t i = 0; i < json.size(); ++i) {
    JsonView entry = json[i];
    const std::string& name = entry["role"].string();
    const std::optional<Role> role = role_named(name);
    if (!role) user_error("{}: '{}' is none of {}", entry["role"].where(), name, all_role_names());
    segments.push_back({*role, entry["text"].string()});
    empty = empty && segments.back().text.empty();
  }
  if (empty) user_error("{}: there is no text in the segments", json.where());
  return segments;
}

void mark_role(std::vector<RoleRun>& runs, std::int64_t begin, std::int64_t end, Role role) {
  if (role == Role::other || begin == end) return;
  if (!runs.empty() && runs.back().end == begin && runs.back().role == role) {
    runs.back().end = end;
  } else {
    runs.push_back({begin, end, role});
  }
}

void encode_with_roles(Encoder& encoder, std::string_view text, std::span<const TextSegment> parts, SpecialTokens specials, Document& out) {
  std::size_t token = out.tokens.size(), byte = 0;
  encoder.encode(text, specials, out.tokens);
  for (const TextSegment& part : parts) {
    const std::size_t begin = token;
    for (; token < out.tokens.size() && byte < part.end; ++token) byte += encoder.tokenizer().bytes_of(out.tokens[token]).size();
    mark_role(out.roles, std::int64_t(begin), std::int64_t(token), part.role);
  }
}

void encode_segments(Encoder& encoder, std::span<const RoleText> segments, SpecialTokens specials, Document& out) {
  AF_CHECK(!segments.empty(), "no segments");
  std::string joined;
  for (const RoleText& segment : segments) joined += segment.text;
  // Tokens spell the normalised text, so that is where the segments' ends are needed. Normalised one by one they have its length, but
  // for what normalisation joins across a border (an accent that the next segment begins with): that is measured at the border.
  const auto length = [&](std::string_view text) { return encoder.normalised(text, specials).size(); };
  std::vector<TextSegment> parts;
  std::size_t end = 0;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    end += length(segments[i].text);
    parts.push_back({end, segments[i].role});
  }
  if (length(joined) != end) {
    std::size_t before = 0, given = 0;  // of the joined text, as given
    end = 0;
    for (std::size_t i = 0; i < segments.size(); ++i) {
      const std::string_view left = tail(std::string_view(joined).substr(0, given)), right = head(segments[i].text);
      end += length(segments[i].text) + length(std::string(left) + std::string(right)) - length(left) - length(right);
      parts[i].end = end = std::max(before, end);
      before = end, given += segments[i].text.size();
    }
    if (length(joined) != end) user_error("characters of neighbouring segments become one in Unicode's normal form NFC");
  }
  encode_with_roles(encoder, encoder.normalised(joined, specials), parts, specials, out);
  out.tokens.push_back(encoder.tokenizer().eod_token());
  mark_role(out.roles, std::int64_t(out.tokens.size()) - 1, std::int64_t(out.tokens.size()), segments.back().role);
}

}  // namespace af
