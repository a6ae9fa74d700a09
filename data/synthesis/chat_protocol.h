// OpenAI's chat completions as vLLM, SGLang and llama.cpp serve them: POST {base_url}/chat/completions.
#pragma once
#include <string>
#include <string_view>

#include "data/json.h"
#include "data/synthesis/teacher.h"

namespace af {

// The request's body: the same bytes for the same request, whose SHA-256 is its key in the journal. `extra` (an object) adds
// members that a server knows beyond the standard's. Bytes that are not UTF-8 become U+FFFD. Seeds are sent as 31 bits, which all
// servers take.
std::string chat_body(const ChatRequest& request, const std::string& model, const Json& extra);

// The members that chat_body() writes itself, and those that would change how the reply is read: `extra` may not have them.
bool is_reserved_member(std::string_view name);

// The answer in a reply's body; where there is none, what is wrong with it (as server_message() says it), and `reply` is as it was.
std::string read_chat_reply(std::string_view body, ChatReply& reply, std::string_view secret = {});

// What a server says of an error, in one line of at most 300 bytes: {"error": {"message": ...}} and its relatives, or the text itself. Some servers
// repeat the key in their complaint: `secret` becomes "***" before the text is cut, for half a key is one too many.
std::string server_message(std::string_view body, std::string_view secret = {});
std::string without_secret(std::string text, std::string_view secret);

}  // namespace af
