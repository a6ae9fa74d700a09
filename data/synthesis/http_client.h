// HTTP requests, many at a time: callers wait, one thread of the client's own moves all bytes (libcurl's multi interface). Proxies are those of
// the environment, as for curl: http_proxy, https_proxy, all_proxy, no_proxy.
#pragma once
#include <memory>
#include <string>
#include <vector>

namespace af {

struct HttpRequest {
  std::string url;
  std::string body;                  // POSTed as application/json
  std::vector<std::string> headers;  // "Authorization: Bearer ..."; in no message
  double connect_seconds = 10, reply_seconds = 600;
  std::string certificates{};  // PEM file of those that may sign an https server's; "": the system's
};

struct HttpReply {
  std::string error;  // why there is no whole reply; "": there is one
  int status = 0;
  std::string body;
  std::string location;    // where a redirection leads; it is not followed
  double retry_after = 0;  // seconds, from a number or a date; 0: none is given
  bool untrusted = false;  // the error is the server's certificate: asking again will not help
};

class HttpClient {
 public:
  static constexpr std::size_t kMostBytes = 64 << 20;  // of a reply's body; more is an error

  // At most `concurrency` requests are under way; others wait for their turn, which no time limit counts.
  explicit HttpClient(int concurrency);
  ~HttpClient();  // when no thread is in post() any more
  HttpClient(const HttpClient&) = delete;

  HttpReply post(const HttpRequest& request);  // blocks; by any number of threads
  void stop();                                 // requests under way and to come end with the error "stopped"

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace af
