// Chat messages as a document in Qwen's format: "<|im_start|>role\ncontent<|im_end|>\n" for each, as they are (no default
// system prompt), and who speaks where.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/document.h"
#include "data/segments.h"
#include "data/tokenizer.h"

namespace af {

class JsonView;

struct Message {
  std::string role;  // system, user, assistant or tool
  std::string content;
};

// Who speaks where in an assistant's text: thought inside <think>, action inside <tool_call>, answer inside <answer>, tags included, other
// outside; a text without any of the three is an answer as a whole. A tag that is not closed reaches to the end.
std::vector<TextSegment> assistant_segments(std::string_view text);

// Appends to `out`. Roles, of the content with its <|im_end|> (headers are Role::other):
//   system                    system
//   user                      user; where the message begins with <tool_response>: observation inside that tag
//   tool                      observation
//   assistant                 as assistant_segments() says
void render_chat(Encoder& encoder, std::span<const Message> messages, SpecialTokens specials, Document& out);

// [{"role": ..., "content": ...}, ...]; other members are ignored. UserError where one is missing or wrong.
std::vector<Message> messages_from(const JsonView& json);

}  // namespace af
