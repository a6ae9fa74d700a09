// Who answers the prompts of the synthesis: questions, plans, judgements.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "data/chat.h"

namespace af {

// Requests that are equal but for their purpose are one request: another sample of the same prompt takes another seed.
struct ChatRequest {
  std::vector<Message> messages;
  double temperature = 1, top_p = 1;
  int max_tokens = 1024;
  std::uint64_t seed = 0;
  std::string purpose;  // "fas.question": under this name its tokens are accounted for
};

struct ChatReply {
  std::string text;  // as it came: the caller looks for <think> and the like
  std::int64_t prompt_tokens = 0, completion_tokens = 0;
  bool length_limited = false;  // the text was cut at max_tokens or at the end of the teacher's context
  bool operator==(const ChatReply&) const = default;
};

// There is no answer to this request, while others may have one. What the user must mend (address, key, model's name) is a UserError instead; a
// teacher that answers nobody any more is an InternalError: the work is to end, and to go on when it is started again.
struct TeacherError : std::runtime_error {
  enum class Kind {
    refused,      // asking again would not help: too long, or not to the teacher's liking
    unavailable,  // all attempts failed, and other requests were answered meanwhile
    stopped,      // by Teacher::stop()
  };
  TeacherError(Kind k, const std::string& message) : std::runtime_error(message), kind(k) {}
  Kind kind;
};

class Teacher {
 public:
  virtual ~Teacher() = default;
  // Blocks until there is an answer; any number of threads may call it. It throws where there is none, as said above.
  virtual ChatReply chat(const ChatRequest& request) = 0;
  // Whoever waits in chat() now or later gets a TeacherError: for when one thread has failed and the others are to end.
  virtual void stop() = 0;
};

}  // namespace af
