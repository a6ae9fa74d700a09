#include "data/chat.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "data/json.h"

namespace af {
namespace {

struct Tag {
  std::string_view open, close;
  Role role;
};
constexpr std::array kAssistantTags{Tag{"<think>", "</think>", Role::thought}, Tag{"<tool_call>", "</tool_call>", Role::action},
                                    Tag{"<answer>", "</answer>", Role::answer}};
constexpr std::array kResponseTag{Tag{"<tool_response>", "</tool_response>", Role::observation}};

// Cuts a text at the tags: what lies inside one, tags included, has its role, the rest `outside`.
std::vector<TextSegment> segments_by(std::span<const Tag> tags, std::string_view text, Role outside) {
  std::vector<TextSegment> segments;
  std::vector<std::size_t> next;  // where each tag opens next; looked for again only when passed: linear in the text
  for (const Tag& tag : tags) next.push_back(text.find(tag.open));
  std::size_t at = 0;
  while (at < text.size()) {
    const Tag* nearest = nullptr;
    std::size_t begin = text.size();
    for (std::size_t t = 0; t < tags.size(); ++t) {
      if (next[t] < at) next[t] = text.find(tags[t].open, at);
      if (next[t] < begin) begin = next[t], nearest = &tags[t];
    }
    if (begin > at) segments.push_back({begin, outside});
    if (!nearest) break;
    std::size_t close = text.find(nearest->close, begin + nearest->open.size());
    at = close == std::string_view::npos ? text.size() : close + nearest->close.size();
    segments.push_back({at, nearest->role});
  }
  return segments;
}

std::vector<TextSegment> segments_of(const Message& message, std::string_view text) {
  if (message.role == "system") return {{text.size(), Role::system}};
  if (message.role == "tool") return {{text.size(), Role::observation}};
  if (message.role == "user") {
    std::size_t first = text.find_first_not_of(" \t\r\n");
    bool response = first != std::string_view::npos && text.substr(first).starts_with(kResponseTag[0].open);
    return response ? segments_by(kResponseTag, text, Role::user) : std::vector<TextSegment>{{text.size(), Role::user}};
  }
  return assistant_segments(text);
}

}  // namespace

std::vector<TextSegment> assistant_segments(std::string_view text) {
  std::vector<TextSegment> segments = segments_by(kAssistantTags, text, Role::other);
  bool untagged = segments.size() <= 1 && (segments.empty() || segments[0].role == Role::other);
  return untagged ? std::vector<TextSegment>{{text.size(), Role::answer}} : segments;
}

void render_chat(Encoder& encoder, std::span<const Message> messages, SpecialTokens specials, Document& out) {
  const Tokenizer& tokenizer = encoder.tokenizer();
  for (const Message& message : messages) {
    out.tokens.push_back(tokenizer.special_token("<|im_start|>"));
    encoder.encode(message.role + "\n", SpecialTokens::split, out.tokens);
    const std::string_view text = encoder.normalised(message.content, specials);  // whose bytes the tokens' lengths count
    const std::vector<TextSegment> segments = segments_of(message, text);
    encode_with_roles(encoder, text, segments, specials, out);
    const std::int64_t end = std::int64_t(out.tokens.size());
    mark_role(out.roles, end, end + 1, segments.empty() ? Role::other : segments.back().role);
    out.tokens.push_back(tokenizer.special_token("<|im_end|>"));
    encoder.encode("\n", SpecialTokens::split, out.tokens);
  }
}

std::vector<Message> messages_from(const JsonView& json) {
  static constexpr std::array kRoles{"system", "user", "assistant", "tool"};
  std::vector<Message> messages;
  for (std::size_t i = 0; i < json.size(); ++i) {
    JsonView entry = json[i];
    Message message{entry["role"].string(), entry["content"].string()};
    if (std::find(kRoles.begin(), kRoles.end(), message.role) == kRoles.end()) {
      user_error("{}: '{}' is none of system, user, assistant, tool", entry["role"].where(), message.role);
    }
    messages.push_back(std::move(message));
  }
  if (messages.empty()) user_error("{}: there are no messages", json.where());
  return messages;
}

}  // namespace af
