// A teacher behind an OpenAI-compatible endpoint. Failed attempts are repeated with growing waits, answers are kept in a journal:
// a run that is killed and started again repeats no request that was answered and loses none.
#pragma once
#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <string>

#include "data/json.h"
#include "data/synthesis/chat_journal.h"
#include "data/synthesis/http_client.h"
#include "data/synthesis/teacher.h"
#include "data/synthesis/token_usage.h"

namespace af {

struct EndpointOptions {
  std::string base_url;  // "http://localhost:8000/v1"
  std::string model;
  std::string api_key{};                       // sent, and written nowhere; "": none
  std::string api_key_env = "OPENAI_API_KEY";  // where it comes from, for messages
  int concurrency = 16;                        // requests under way at the same time
  int retries = 10;                            // attempts after the first
  double retry_wait = 1;                       // seconds before the first retry (retry.h)
  double connect_seconds = 10, reply_seconds = 600;
  std::string certificates{};                      // http_client.h
  Json extra{};                                    // an object with more members of each request, or null
  std::string journal;                             // the file
  std::function<void(const std::string&)> note{};  // told of what goes wrong and is tried again; by any thread; may be empty
};

class EndpointTeacher : public Teacher {
 public:
  explicit EndpointTeacher(EndpointOptions options);  // UserError where an option or the journal is wrong
  ChatReply chat(const ChatRequest& request) override;
  void stop() override;

  UsageByPurpose usage() const;
  const ChatJournal& journal() const { return journal_; }

 private:
  ChatReply ask(const std::string& body, const std::string& key, const std::string& purpose);
  struct Attempt {
    enum class Outcome { answered, again, refused } outcome;
    ChatReply reply;
    std::string problem;     // where there is no reply
    double retry_after = 0;  // seconds, that the server asks for
  };
  Attempt attempt(const HttpRequest& request);  // UserError for what no request can do about
  [[noreturn]] void refused(const std::string& purpose, const std::string& said);
  [[noreturn]] void unavailable(const std::string& purpose, std::int64_t answers_before, const std::string& problem);
  std::int64_t answers() const;
  void wait(double seconds);
  void account(const std::string& purpose, const TokenUsage& more);

  EndpointOptions options_;
  ChatJournal journal_;
  HttpClient client_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::set<std::string> under_way_;  // keys: an equal request waits for the answer to the first
  UsageByPurpose usage_;
  std::int64_t answers_ = 0, refused_ = 0;  // by the endpoint in this run
  bool stopped_ = false;
};

}  // namespace af
