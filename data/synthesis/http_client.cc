#include "data/synthesis/http_client.h"

#include <curl/curl.h>
#include <signal.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "core/error.h"

namespace af {
namespace {

constexpr int kIdleMilliseconds = 1000;  // a new request wakes the thread before

// One request, from its caller's stack: it lives until `done`.
struct Transfer {
  const HttpRequest* request;
  HttpReply reply;
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
  char detail[CURL_ERROR_SIZE] = "";
  bool done = false;
  std::condition_variable changed;
};

std::size_t take(char* bytes, std::size_t, std::size_t count, void* context) {
  std::string& body = static_cast<Transfer*>(context)->reply.body;
  if (body.size() + count > HttpClient::kMostBytes) return 0;  // libcurl ends the transfer
  body.append(bytes, count);
  return count;
}

void describe(Transfer& transfer) {
  const HttpRequest& request = *transfer.request;
  CURL* easy = transfer.easy = curl_easy_init();
  AF_CHECK(easy, "libcurl has no memory");
  // "Expect:" empty: no pause of a second before a long body.
  for (const char* header : {"Content-Type: application/json", "Expect:"}) transfer.headers = curl_slist_append(transfer.headers, header);
  for (const std::string& header : request.headers) transfer.headers = curl_slist_append(transfer.headers, header.c_str());
  curl_easy_setopt(easy, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(request.body.size()));
  curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request.body.data());
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer.headers);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, long(request.connect_seconds * 1000));
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, long(request.reply_seconds * 1000));
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);  // an answer may take minutes, in which nothing is sent
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer.detail);
  curl_easy_setopt(easy, CURLOPT_PRIVATE, &transfer);
  if (!request.certificates.empty()) curl_easy_setopt(easy, CURLOPT_CAINFO, request.certificates.c_str());
}

void read_result(Transfer& transfer, CURLcode result) {
  HttpReply& reply = transfer.reply;
  if (result != CURLE_OK) {
    reply.error = transfer.detail[0] ? transfer.detail : curl_easy_strerror(result);
    reply.untrusted = result == CURLE_PEER_FAILED_VERIFICATION || result == CURLE_SSL_CACERT_BADFILE || result == CURLE_SSL_ISSUER_ERROR;
    if (result == CURLE_WRITE_ERROR) reply.error = fmt::format("the reply is longer than {} MiB", HttpClient::kMostBytes >> 20);
  }
  long status = 0;
  curl_off_t retry_after = 0;
  char* location = nullptr;
  curl_easy_getinfo(transfer.easy, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(transfer.easy, CURLINFO_RETRY_AFTER, &retry_after);
  curl_easy_getinfo(transfer.easy, CURLINFO_REDIRECT_URL, &location);
  reply.status = int(status);
  reply.retry_after = std::max(0., double(retry_after));  // a date may lie in the past
  if (location) reply.location = location;
}

}  // namespace

struct HttpClient::State {
  explicit State(int most) : concurrency(std::size_t(most)) {
    AF_CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == 0, "libcurl cannot begin");  // counted: with the cleanup below
    multi = curl_multi_init();
    AF_CHECK(multi, "libcurl has no memory");
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, long(concurrency));  // kept open for the next request
    thread = std::thread([this] { run(); });
  }
  ~State() {
    end();
    thread.join();
    curl_multi_cleanup(multi);
    curl_global_cleanup();
  }

  void end() {
    {
      std::lock_guard lock(mutex);
      stopping = true;
    }
    curl_multi_wakeup(multi);
  }

  // Its caller may go on, and takes the transfer with it.
  void finish(Transfer& transfer) {
    if (transfer.easy) {
      curl_multi_remove_handle(multi, transfer.easy);
      curl_easy_cleanup(transfer.easy);
      curl_slist_free_all(transfer.headers);
    }
    std::lock_guard lock(mutex);
    transfer.done = true;
    transfer.changed.notify_one();
  }

  // Those whose turn it is; false when all is to end.
  bool begin() {
    std::unique_lock lock(mutex);
    while (!stopping && !waiting.empty() && running.size() < concurrency) {
      Transfer* transfer = waiting.front();
      waiting.pop_front();
      running.push_back(transfer);
      lock.unlock();
      describe(*transfer);
      curl_multi_add_handle(multi, transfer->easy);
      lock.lock();
    }
    return !stopping;
  }

  void run() {
    // A connection that the other side has cut is an error, no signal: libcurl leaves that to us where it must not touch signals.
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
    while (begin()) {
      int active = 0, left = 0;
      curl_multi_perform(multi, &active);
      bool any_done = false;
      while (const CURLMsg* message = curl_multi_info_read(multi, &left)) {
        if (message->msg != CURLMSG_DONE) continue;
        Transfer* transfer = nullptr;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
        read_result(*transfer, message->data.result);
        std::erase(running, transfer);
        finish(*transfer);
        any_done = true;
      }
      if (!any_done) curl_multi_poll(multi, nullptr, 0, kIdleMilliseconds, nullptr);
    }
    // From here on post() adds nothing.
    running.insert(running.end(), waiting.begin(), waiting.end());
    for (Transfer* transfer : running) {
      transfer->reply = {"stopped", 0, "", "", 0};
      finish(*transfer);
    }
  }

  const std::size_t concurrency;
  CURLM* multi;
  std::mutex mutex;
  std::deque<Transfer*> waiting;  // under the mutex, as `stopping` and each transfer's `done`
  bool stopping = false;
  std::vector<Transfer*> running;  // the thread's own
  std::thread thread;
};

HttpClient::HttpClient(int concurrency) : state_(std::make_unique<State>(concurrency)) {}

HttpClient::~HttpClient() = default;

HttpReply HttpClient::post(const HttpRequest& request) {
  Transfer transfer;
  transfer.request = &request;
  std::unique_lock lock(state_->mutex);
  if (state_->stopping) return {"stopped", 0, "", "", 0};
  state_->waiting.push_back(&transfer);
  curl_multi_wakeup(state_->multi);
  transfer.changed.wait(lock, [&] { return transfer.done; });
  return std::move(transfer.reply);
}

void HttpClient::stop() { state_->end(); }

}  // namespace af
