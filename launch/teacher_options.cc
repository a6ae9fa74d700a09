#include "launch/teacher_options.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>

#include "core/error.h"

namespace af {
namespace {

constexpr std::int64_t kMostConcurrency = 4096;
constexpr double kLeastSeconds = 0.001, kMostSeconds = 86400;

// Every request has a socket: more of them than the shell allows by default.
void allow_open_files(int count) {
  rlimit limit;
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= rlim_t(count)) return;
  limit.rlim_cur = limit.rlim_max == RLIM_INFINITY ? rlim_t(count) : std::min(limit.rlim_max, rlim_t(count));
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// A line on stderr for the first failed attempt and then one every some seconds, with how many it stands for.
class Notes {
 public:
  void operator()(const std::string& text) {
    std::lock_guard lock(mutex_);
    ++unsaid_;
    const auto now = std::chrono::steady_clock::now();
    if (said_any_ && now - said_ < std::chrono::seconds(10)) return;
    const std::string others = unsaid_ > 1 ? fmt::format(" (and {} others)", unsaid_ - 1) : "";
    fmt::print(stderr, "{}{}{}\n", ::isatty(STDERR_FILENO) ? "\r\x1b[K" : "", text, others);
    said_ = now, said_any_ = true, unsaid_ = 0;
  }

 private:
  std::mutex mutex_;
  std::chrono::steady_clock::time_point said_;
  bool said_any_ = false;
  int unsaid_ = 0;
};

}  // namespace

std::vector<Option> connection_options() {
  return {
      {"--endpoint", Takes::one_value, "URL", "an OpenAI-compatible server (vLLM, SGLang, llama.cpp), as http://localhost:8000/v1", {}, false},
      {"--model", Takes::one_value, "NAME", "endpoint: the model's name there", {}, false},
      {"--api-key-env",
       Takes::one_value,
       "VARIABLE",
       "endpoint: the environment variable with the key (default OPENAI_API_KEY); the key is written nowhere",
       {},
       false},
      {"--concurrency", Takes::one_value, "N", "endpoint: requests at the same time (default 16)", {}, false},
      {"--retries",
       Takes::one_value,
       "N",
       "endpoint: attempts after a failed one (408, 409, 425, 429, 5xx, replies that are cut, late or broken; default 10)",
       {},
       false},
      {"--retry-wait",
       Takes::one_value,
       "SECONDS",
       "endpoint: before the first retry, then twice as long each time up to a minute, or what the server asks for (default 1)",
       {},
       false},
      {"--cacert",
       Takes::one_value,
       "FILE",
       "endpoint: the certificates (PEM) to trust in the place of the system's, for https:// with one that you made yourself; a proxy is what http_proxy, "
       "https_proxy and no_proxy in the environment say",
       {},
       false},
      {"--connect-timeout", Takes::one_value, "SECONDS", "endpoint: for a connection (default 10)", {}, false},
      {"--timeout", Takes::one_value, "SECONDS", "endpoint: for a whole reply (default 600)", {}, false},
      {"--request-extra",
       Takes::one_value,
       "JSON",
       "endpoint: more members of each request, as '{\"chat_template_kwargs\": {\"enable_thinking\": false}}'",
       {},
       false},
  };
}

int concurrency_of(const Arguments& arguments) { return int(arguments.integer("--concurrency", 16, 1, kMostConcurrency)); }

EndpointOptions connection_from(const Arguments& arguments) {
  EndpointOptions options;
  options.base_url = arguments.value("--endpoint");
  options.model = arguments.value("--model");
  if (options.base_url.empty()) user_error("--endpoint URL is missing: where is the teacher, say http://localhost:8000/v1?");
  if (options.model.empty()) user_error("--model NAME is missing: which model of {}?", options.base_url);
  options.api_key_env = arguments.value("--api-key-env", options.api_key_env);
  const char* key = std::getenv(options.api_key_env.c_str());
  if (!key && arguments.has("--api-key-env")) user_error("--api-key-env {}: no such environment variable is set", options.api_key_env);
  options.api_key = key ? key : "";
  options.certificates = arguments.value("--cacert");
  if (!options.certificates.empty() && ::access(options.certificates.c_str(), R_OK) != 0)
    user_error("--cacert {}: cannot be read: {}", options.certificates, std::strerror(errno));
  options.concurrency = concurrency_of(arguments);
  options.retries = int(arguments.integer("--retries", options.retries, 0, 1000));
  options.retry_wait = arguments.number("--retry-wait", options.retry_wait, kLeastSeconds, kMostSeconds);
  options.connect_seconds = arguments.number("--connect-timeout", options.connect_seconds, kLeastSeconds, kMostSeconds);
  options.reply_seconds = arguments.number("--timeout", options.reply_seconds, kLeastSeconds, kMostSeconds);
  if (arguments.has("--request-extra")) options.extra = Json::parse(arguments.value("--request-extra"), "--request-extra");
  options.note = [notes = std::make_shared<Notes>()](const std::string& text) { (*notes)(text); };
  allow_open_files(options.concurrency + 256);
  return options;
}

}  // namespace af
