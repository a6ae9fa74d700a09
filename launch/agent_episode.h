// One question put to a model that acts: what it is shown, what it writes, which tool it calls, what comes back, until it answers. Tokens in
// and out; nothing here knows the model. Three formats, as the training data has them:
//   chat  the released trajectories' messages (data/chat.h): system, the question with the tools, then assistant and user in turns
//   text  FAS: the question, then steps and <tool_response>s one after the other. A model that lists options, as in HAS, has the call of
//         the option made that it chooses
//   has   the same, and each turn is begun for the model with "Option 1:"
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/chat.h"
#include "data/synthesis/tool_schema.h"
#include "data/tokenizer.h"

namespace af {

enum class AgentFormat { chat, text, has };
using ToolCaller = std::function<std::string(const ToolCall&)>;  // the response's text

struct AgentSettings {
  AgentFormat format = AgentFormat::chat;
  std::string system_prompt;       // chat
  std::int64_t max_turns = 8;      // tool calls
  std::vector<std::string> stop;   // strings that end the episode
};

class Episode {
 public:
  enum class End {
    none,
    answer,   // <answer>..</answer>
    silent,   // the model ended its turn, or wrote a stop string, without a call and without an answer
    turns,    // too many calls
    length    // ended from outside: no room for more tokens
  };
  Episode(const AgentSettings& settings, const Tokenizer& tokenizer, const ToolSet& tools, const ToolCaller& call, const std::string& question);

  // Tokens that the model has not yet seen: the prompt, or the last one written and what came back.
  std::span<const std::int32_t> pending() const { return std::span(tokens_).subspan(seen_); }
  void seen() { seen_ = tokens_.size(); }
  const std::vector<std::int32_t>& tokens() const { return tokens_; }  // all, prompt and responses included
  std::int64_t written() const { return written_; }                   // by the model

  void write(std::int32_t token);  // what the model says next
  void stop_for_length();
  End end() const { return end_; }
  const std::string& answer() const { return answer_; }
  std::int64_t calls() const { return calls_; }
  const std::vector<Message>& messages() const { return messages_; }  // the question, steps, responses: a trajectory

 private:
  void append(std::string_view text);
  void append_special(const char* token) { tokens_.push_back(std::int32_t(tokenizer_->special_token(token))); }
  void begin_turn();
  bool turn_is_over(std::size_t written_from, bool ended_by_model);
  void end_turn();
  std::string chosen_step() const;  // of the turn's options; the turn itself where it lists none
  void finish(End end);

  const AgentSettings* settings_;
  const Tokenizer* tokenizer_;
  const ToolSet* tools_;
  const ToolCaller* call_;
  std::unique_ptr<Encoder> encoder_;
  std::vector<std::int32_t> tokens_;
  std::size_t seen_ = 0;
  std::int64_t written_ = 0, calls_ = 0;
  std::string turn_;  // the text of the model's turn
  std::vector<Message> messages_;
  std::string answer_;
  End end_ = End::none;
};
const char* name_of(Episode::End end);

// A listed step by what a decision at the end of the text chooses, "I will choose option 2" or "I choice Solution [2]"; "" where it chooses none, or one
// that is not listed.
std::string chosen_option(std::string_view turn);

}  // namespace af
