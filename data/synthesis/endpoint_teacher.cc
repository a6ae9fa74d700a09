#include "data/synthesis/endpoint_teacher.h"

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "data/sha256.h"
#include "data/synthesis/chat_protocol.h"
#include "data/synthesis/retry.h"

namespace af {
namespace {

EndpointOptions checked(EndpointOptions options) {
  std::string& url = options.base_url;
  while (url.ends_with('/')) url.pop_back();
  const std::string example = "expected an address such as http://localhost:8000/v1";
  if (!url.starts_with("http://") && !url.starts_with("https://")) user_error("endpoint {}: {}", url, example);
  const std::string_view rest = std::string_view(url).substr(url.find("//") + 2);
  // Not shown: it may hold a password.
  if (rest.substr(0, rest.find('/')).find('@') != rest.npos)
    user_error("endpoint: its address holds a name or a password; a key goes into {}", options.api_key_env);
  if (std::ranges::any_of(url, [](unsigned char c) { return c <= ' ' || c == '?' || c == '#'; })) user_error("endpoint {}: {}", url.substr(0, url.find_first_of("?#")), example);
  if (url.ends_with("/chat/completions")) user_error("endpoint {}: give it without /chat/completions", url);
  if (options.model.empty()) user_error("endpoint {}: which model?", url);
  if (std::ranges::any_of(options.api_key, [](unsigned char c) { return c < ' ' || c == 127; }))
    user_error("the environment variable {} holds a line end or another control character", options.api_key_env);
  if (!options.extra.is_null())
    for (const auto& [name, value] : options.extra.object("more members of a request"))
      if (is_reserved_member(name)) user_error("more members of a request: \"{}\" is set by the program itself", name);
  return options;
}

// Takes a key off the set of those under way, however the request ends.
struct UnderWay {
  std::mutex& mutex;
  std::condition_variable& changed;
  std::set<std::string>& keys;
  const std::string& key;
  ~UnderWay() {
    std::lock_guard lock(mutex);
    keys.erase(key);
    changed.notify_all();
  }
};

}  // namespace

EndpointTeacher::EndpointTeacher(EndpointOptions options)
    : options_(checked(std::move(options))), journal_(options_.journal), client_(options_.concurrency) {
  if (const std::int64_t damaged = journal_.damaged_lines(); damaged > 0 && options_.note)
    options_.note(fmt::format("{}: {} damaged lines; their requests are made again", journal_.path(), damaged));
}

ChatReply EndpointTeacher::chat(const ChatRequest& request) {
  const std::string body = chat_body(request, options_.model, options_.extra), key = sha256_hex(body);
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopped_ || !under_way_.contains(key); });
    if (stopped_) throw TeacherError(TeacherError::Kind::stopped, "stopped");
    under_way_.insert(key);
  }
  UnderWay under_way{mutex_, changed_, under_way_, key};
  if (std::optional<ChatReply> known = journal_.find(key)) {
    account(request.purpose, {.from_journal = 1});
    return *known;
  }
  ChatReply reply = ask(body, key, request.purpose);
  journal_.append(key, request.purpose, reply);
  account(request.purpose,
          {.answers = 1, .length_limited = reply.length_limited, .prompt_tokens = reply.prompt_tokens, .completion_tokens = reply.completion_tokens});
  return reply;
}

ChatReply EndpointTeacher::ask(const std::string& body, const std::string& key, const std::string& purpose) {
  HttpRequest request{options_.base_url + "/chat/completions", body, {}, options_.connect_seconds, options_.reply_seconds,
                      options_.certificates};
  if (!options_.api_key.empty()) request.headers.push_back("Authorization: Bearer " + options_.api_key);
  const std::uint64_t seed = std::stoull(key.substr(0, 16), nullptr, 16);
  const std::int64_t answers_before = answers();
  for (int retry = 0;; ++retry) {
    Attempt last = attempt(request);
    if (last.outcome == Attempt::Outcome::answered) return std::move(last.reply);
    if (last.outcome == Attempt::Outcome::refused) refused(purpose, last.problem);
    if (retry == options_.retries) unavailable(purpose, answers_before, last.problem);
    const double seconds = wait_before_retry(options_.retry_wait, retry + 1, last.retry_after, seed);
    account(purpose, {.retries = 1});
    if (options_.note) options_.note(fmt::format("{}: {}; asked again in {:.1f} s", options_.base_url, last.problem, seconds));
    wait(seconds);
  }
}

// Where not a single answer has come before, it is the endpoint that does not understand our requests.
void EndpointTeacher::refused(const std::string& purpose, const std::string& said) {
  constexpr std::int64_t kMost = 8;
  account(purpose, {.refused = 1});
  std::unique_lock lock(mutex_);
  if (++refused_ >= kMost && answers_ == 0 && journal_.size() == 0)
    user_error("the endpoint {} has refused the first {} requests ({})", options_.base_url, kMost, said);
  throw TeacherError(TeacherError::Kind::refused, fmt::format("the endpoint {} refuses a request ({})", options_.base_url, said));
}

// A request that fails while others are answered is left out alone. Where nobody was answered from its first attempt to its last, the endpoint is
// away, and the requests that it would have answered are not to be lost for that.
void EndpointTeacher::unavailable(const std::string& purpose, std::int64_t answers_before, const std::string& problem) {
  account(purpose, {.unavailable = 1});
  const std::string said = fmt::format("in {} attempts; at last: {}", options_.retries + 1, problem);
  if (answers() > answers_before)
    throw TeacherError(TeacherError::Kind::unavailable, fmt::format("the endpoint {} did not answer a request {}", options_.base_url, said));
  throw InternalError(fmt::format("the endpoint {} answered nothing {}; the same command, given again, goes on", options_.base_url, said));
}

EndpointTeacher::Attempt EndpointTeacher::attempt(const HttpRequest& request) {
  using enum Attempt::Outcome;
  const HttpReply http = client_.post(request);
  {
    std::lock_guard lock(mutex_);
    if (stopped_) throw TeacherError(TeacherError::Kind::stopped, "stopped");
  }
  const std::string &url = options_.base_url, &env = options_.api_key_env, &key = options_.api_key;
  if (http.untrusted) user_error("the endpoint {} has a certificate that is not to be trusted: {}\n--cacert FILE names the certificates (PEM) that are", url, http.error);
  if (!http.error.empty()) return {again, {}, without_secret(http.error, key)};
  if (http.status == 200) {
    ChatReply reply;
    const std::string problem = read_chat_reply(http.body, reply, key);
    if (problem.empty()) return {answered, std::move(reply), ""};
    return {again, {}, problem};
  }
  const std::string said = fmt::format("HTTP {}: {}", http.status, server_message(http.body, key));
  if (is_passing_status(http.status)) return {again, {}, said, http.retry_after};
  if (http.status == 400 || http.status == 413 || http.status == 422) return {refused, {}, said};
  if (http.status == 401 || http.status == 403) {
    if (key.empty()) user_error("the endpoint {} wants a key, and the environment variable {} holds none ({})", url, env, said);
    user_error("the endpoint {} does not accept the key in the environment variable {} ({})", url, env, said);
  }
  if (http.status >= 300 && http.status < 400) user_error("the endpoint {} redirects to {}: give that address", url, without_secret(http.location, key));
  if (http.status == 404) user_error("the endpoint {} has no chat completions at this address, or no model {} ({})", url, options_.model, said);
  user_error("the endpoint {} does not answer chat completions ({})", url, said);
}

void EndpointTeacher::wait(double seconds) {
  std::unique_lock lock(mutex_);
  if (changed_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return stopped_; }))
    throw TeacherError(TeacherError::Kind::stopped, "stopped");
}

void EndpointTeacher::stop() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }
  client_.stop();
}

std::int64_t EndpointTeacher::answers() const {
  std::lock_guard lock(mutex_);
  return answers_;
}

void EndpointTeacher::account(const std::string& purpose, const TokenUsage& more) {
  std::lock_guard lock(mutex_);
  usage_[purpose] += more;
  answers_ += more.answers;
}

UsageByPurpose EndpointTeacher::usage() const {
  std::lock_guard lock(mutex_);
  return usage_;
}

}  // namespace af
