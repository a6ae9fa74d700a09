#include "data/synthesis/chat_protocol.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "data/utf8.h"

namespace af {
namespace {

constexpr std::array<std::string_view, 6> kReserved{"model", "messages", "temperature", "top_p", "max_tokens", "seed"};
constexpr std::array<std::string_view, 2> kOtherReply{"stream", "n"};
constexpr std::uint64_t kSeedMask = 0x7fffffff;
constexpr std::size_t kLongestMessage = 300;

std::string valid_utf8(const std::string& text) {
  std::size_t at = first_invalid_utf8(text);
  if (at == text.size()) return text;
  std::string valid = text.substr(0, at);
  while (at < text.size()) {
    const int bytes = utf8_character(text, at).bytes;
    bytes ? valid.append(text, at, std::size_t(bytes)) : valid.append("\xef\xbf\xbd");
    at += std::size_t(std::max(1, bytes));
  }
  return valid;
}

// The member of an object, or an element of an array (its first): nullptr where it is not there.
const Json* first_of(const Json* value) { return value && value->is_array() && !value->array().empty() ? &value->array().front() : nullptr; }
const Json* member(const Json* value, std::string_view name) { return value ? value->find(name) : nullptr; }

std::int64_t count(const Json* usage, std::string_view name) {
  const Json* value = member(usage, name);
  return value && value->is_integer() ? std::max<std::int64_t>(0, value->integer()) : 0;
}

std::string shortened(std::string text) {
  if (text.size() > kLongestMessage) text = text.substr(0, kLongestMessage - 3) + "...";
  return printable(text);
}

}  // namespace

bool is_reserved_member(std::string_view name) {
  return std::ranges::find(kReserved, name) != kReserved.end() || std::ranges::find(kOtherReply, name) != kOtherReply.end();
}

std::string chat_body(const ChatRequest& request, const std::string& model, const Json& extra) {
  Json messages = Json::Array{}, body;
  for (const Message& message : request.messages) {
    Json one;
    one.set("role", message.role);
    one.set("content", valid_utf8(message.content));
    messages.push_back(std::move(one));
  }
  body.set("model", model);
  body.set("messages", std::move(messages));
  body.set("temperature", request.temperature);
  body.set("top_p", request.top_p);
  body.set("max_tokens", request.max_tokens);
  body.set("seed", std::int64_t(request.seed & kSeedMask));
  if (!extra.is_null())
    for (const auto& [name, value] : extra.object()) body.set(name, value);
  return body.dump();
}

std::string read_chat_reply(std::string_view body, ChatReply& reply, std::string_view secret) {
  Json json;
  try {
    json = Json::parse(body, "the reply");
  } catch (const UserError& error) {
    return shortened(without_secret(error.what(), secret));
  }
  const Json* choice = first_of(json.find("choices"));
  const Json* message = member(choice, "message");
  if (!message || !message->is_object()) return fmt::format("the reply has no choices[0].message: {}", server_message(body, secret));
  // null is what a server that keeps thoughts apart says when max_tokens ended them.
  const Json* content = message->find("content");
  if (content && !content->is_string() && !content->is_null()) return fmt::format("choices[0].message.content is {}", content->describe());
  const Json *usage = json.find("usage"), *reason = choice->find("finish_reason");
  reply.text = content && content->is_string() ? content->string() : "";
  reply.prompt_tokens = count(usage, "prompt_tokens");
  reply.completion_tokens = count(usage, "completion_tokens");
  reply.length_limited = reason && reason->is_string() && reason->string() == "length";
  return "";
}

std::string without_secret(std::string text, std::string_view secret) {
  constexpr std::string_view kInstead = "***";
  if (secret.empty()) return text;
  for (std::size_t at = 0; (at = text.find(secret, at)) != text.npos; at += kInstead.size()) text.replace(at, secret.size(), kInstead);
  return text;
}

std::string server_message(std::string_view body, std::string_view secret) {
  std::string text(body);
  try {
    const Json json = Json::parse(body, "");
    const Json* error = json.find("error");
    for (const Json* candidate : {json.find("detail"), json.find("message"), error, member(error, "message")})
      if (candidate && !candidate->is_null()) text = candidate->is_string() ? candidate->string() : candidate->dump();
  } catch (const UserError&) {  // a page of a proxy, say: as it is
  }
  for (char& c : text)
    if (c == '\n' || c == '\r' || c == '\t') c = ' ';
  return shortened(without_secret(std::move(text), secret));
}

}  // namespace af
