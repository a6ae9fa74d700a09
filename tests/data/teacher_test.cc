// The endpoint teacher piece by piece: every place at which a journal can be cut, every form of a reply, waits, and raw replies over a socket.
#include <arpa/inet.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <thread>

#include "data/file.h"
#include "data/sha256.h"
#include "data/synthesis/chat_journal.h"
#include "data/synthesis/chat_protocol.h"
#include "data/synthesis/endpoint_teacher.h"
#include "data/synthesis/retry.h"
#include "tests/data/corpus.h"

namespace af {
namespace {

void put(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes; }

ChatReply answer(int i) {
  std::string text = fmt::format("<think>{}</think>\n\"\\ \u00e9\u2028", i);
  text += '\0';
  return {text + std::string(std::size_t(17 * i), 'x'), i, 2 * i, i % 2 == 1};
}
std::string key(int i) { return sha256_hex(fmt::format("request {}", i)); }

TEST(ChatJournal, GoesOnFromEveryPlace) {
  constexpr int kCount = 5;
  ScratchFolder folder;
  const std::string path = folder / "x.journal";
  std::vector<std::size_t> ends{0};  // of the head and each line
  {
    ChatJournal journal(path);
    ends.push_back(read_file(path).size());
    for (int i = 0; i < kCount; ++i) {
      EXPECT_FALSE(journal.find(key(i)));
      journal.append(key(i), "test", answer(i));
      EXPECT_EQ(journal.find(key(i)), answer(i));
      ends.push_back(read_file(path).size());
    }
  }
  const std::string whole = read_file(path);
  for (std::size_t size = 0; size <= whole.size(); size += size % 200 < 40 ? 1 : 7) {
    put(path, whole.substr(0, size));
    const int kept = std::max(0, int(std::upper_bound(ends.begin(), ends.end(), size) - ends.begin()) - 2);
    {
      ChatJournal journal(path);
      ASSERT_EQ(journal.size(), kept) << size;
      ASSERT_EQ(journal.damaged_lines(), 0) << size;
      for (int i = 0; i < kCount; ++i) {
        ASSERT_EQ(journal.find(key(i)), i < kept ? std::optional(answer(i)) : std::nullopt) << size;
        if (i >= kept) journal.append(key(i), "test", answer(i));
      }
    }
    ASSERT_EQ(read_file(path), whole) << "cut at " << size;
  }
}

TEST(ChatJournal, TakesNoDamagedLineForAnAnswer) {
  ScratchFolder folder;
  const std::string path = folder / "x.journal";
  {
    ChatJournal journal(path);
    for (int i = 0; i < 3; ++i) journal.append(key(i), "test", answer(i));
  }
  const std::string whole = read_file(path);
  const std::size_t second = whole.find(key(1)), key_end = second + 64;
  std::string zeros = whole, hollow = whole;
  for (std::size_t at = second; at < key_end; ++at) zeros[at] = '\0';  // a block that the disk did not keep
  hollow[whole.find("prompt_tokens", key_end) - 1] = ' ';              // which only a look into the line tells
  put(path, zeros);
  {
    ChatJournal journal(path);
    EXPECT_EQ(journal.damaged_lines(), 1);
    EXPECT_FALSE(journal.find(key(1)));
    EXPECT_EQ(journal.find(key(2)), answer(2));
  }
  put(path, hollow);
  ChatJournal journal(path);
  EXPECT_FALSE(journal.find(key(1)));
  journal.append(key(1), "test", answer(1));
  EXPECT_EQ(journal.find(key(1)), answer(1));
  EXPECT_EQ(journal.find(key(2)), answer(2));
}

TEST(ChatJournal, RefusesStrangersAndCompany) {
  ScratchFolder folder;
  for (const std::string& text :
       {std::string("notes"), std::string("notes\n"), std::string("{\"journal\":\"af_synth\",\"version\":2}\n"), std::string("\n")}) {
    put(folder / "notes", text);
    EXPECT_NE(complaint_of([&] { ChatJournal journal(folder / "notes"); }).find("notes: is no journal of af_synth"), std::string::npos) << text;
    EXPECT_EQ(read_file(folder / "notes"), text);
  }
  ChatJournal first(folder / "x");
  EXPECT_NE(complaint_of([&] { ChatJournal second(folder / "x"); }).find("x: another process is at work"), std::string::npos);
  EXPECT_NE(complaint_of([&] { ChatJournal nowhere(folder / "no/x"); }).find("cannot be opened: No such file"), std::string::npos);
}

TEST(ChatJournal, AFullDiskLeavesWholeLines) {  // a limit of the file's size stands for it: a line is written in part
  ScratchFolder folder;
  ChatJournal journal(folder / "x");
  journal.append(key(0), "test", answer(0));
  const std::string before = read_file(folder / "x");
  rlimit limit;
  ::getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit less{before.size() + 30, limit.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &less);
  const std::string message = complaint_of([&] { journal.append(key(1), "test", answer(1)); });
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("x: cannot be written: File too large; what it holds is kept"), std::string::npos) << message;
  EXPECT_EQ(read_file(folder / "x"), before);
  journal.append(key(1), "test", answer(1));
  EXPECT_EQ(journal.find(key(1)), answer(1));
}

TEST(ChatProtocol, TheBodyIsTheStandards) {
  ChatRequest request{{{"system", "be \"brief\""}, {"user", "q\xff\xe9?"}}, 0.25, 1, 9, 0x123456789abcdef0, "p"};
  Json extra;
  extra.set("top_k", 20);
  EXPECT_EQ(
      chat_body(request, "m/x", extra),
      "{\"model\":\"m/x\",\"messages\":[{\"role\":\"system\",\"content\":\"be \\\"brief\\\"\"},{\"role\":\"user\",\"content\":\"q\ufffd\ufffd?\"}],"
      "\"temperature\":0.25,\"top_p\":1.0,\"max_tokens\":9,\"seed\":448585456,\"top_k\":20}");
  const std::string before = chat_body(request, "m", {});
  request.purpose = "another";
  EXPECT_EQ(chat_body(request, "m", {}), before);
  request.seed += 1;
  EXPECT_NE(chat_body(request, "m", {}), before);
}

TEST(ChatProtocol, ReadsRepliesAndSaysWhatIsWrong) {
  ChatReply reply;
  const std::string usage = ",\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":6,\"total_tokens\":11}";
  EXPECT_EQ(read_chat_reply(
                R"({"choices":[{"index":0,"message":{"role":"assistant","content":"<think>a\n"},"finish_reason":"length"}])" + usage + "}", reply),
            "");
  EXPECT_EQ(reply, (ChatReply{"<think>a\n", 5, 6, true}));
  EXPECT_EQ(read_chat_reply(R"({"choices":[{"message":{"content":null,"reasoning":"x"},"finish_reason":"stop"}],"usage":null})", reply), "");
  EXPECT_EQ(reply, (ChatReply{"", 0, 0, false}));
  const std::vector<std::pair<std::string, std::string>> wrong{
      {"", "the reply:1:1: "},
      {"{\"choices\":[{\"message\":{\"content\":\"ha", "the reply:1:"},
      {"{\"choices\":[{\"message\":{\"content\":\"\xff\"}}]}", "the reply:1:"},
      {"{\"choices\":[]}", "the reply has no choices[0].message"},
      {"{\"choices\":{}}", "the reply has no choices[0].message"},
      {"[1]", "the reply has no choices[0].message: [1]"},
      {"{\"choices\":[{\"message\":7}]}", "the reply has no choices[0].message"},
      {"{\"choices\":[{\"text\":\"old\"}]}", "the reply has no choices[0].message"},
      {"{\"choices\":[{\"message\":{\"content\":[1]}}]}", "choices[0].message.content is an array"},
      {"{\"error\":{\"message\":\"over\\nloaded\"}}", "the reply has no choices[0].message: over loaded"}};
  for (const auto& [body, says] : wrong) {
    ChatReply untouched = answer(3);
    EXPECT_TRUE(read_chat_reply(body, untouched).starts_with(says)) << body << "\n" << read_chat_reply(body, untouched);
    EXPECT_EQ(untouched, answer(3));
  }
  EXPECT_EQ(server_message("{\"object\":\"error\",\"message\":\"too long\",\"code\":400}"), "too long");  // vLLM before 0.10
  EXPECT_EQ(server_message("{\"detail\":[{\"loc\":[\"body\"]}]}"), "[{\"loc\":[\"body\"]}]");             // FastAPI
  EXPECT_EQ(server_message("<html>\x1b[31m"), "<html>\\x1b[31m");
  EXPECT_LE(server_message(std::string(5000, 'a')).size(), 300u);
}

TEST(Retry, WaitsGrowAndObeyTheServer) {
  double sum = 0;
  for (int seed = 0; seed < 1000; ++seed) {
    for (int retry = 1; retry < 20; ++retry) {
      const double b = std::min(60., 0.5 * double(1ll << (retry - 1))), wait = wait_before_retry(0.5, retry, 0, std::uint64_t(seed));
      ASSERT_GE(wait, b / 2);
      ASSERT_LT(wait, b);
      ASSERT_EQ(wait, wait_before_retry(0.5, retry, 0, std::uint64_t(seed)));
      if (retry == 1) sum += wait;
    }
    const double asked = wait_before_retry(0.5, 1, 30, std::uint64_t(seed));
    ASSERT_TRUE(asked >= 30 && asked < 33);
  }
  EXPECT_NEAR(sum / 1000, 0.375, 0.02);  // they differ from seed to seed
  EXPECT_LT(wait_before_retry(1, 1, 1e9, 1), 661);
  for (int status : {408, 409, 425, 429, 500, 502, 503, 504}) EXPECT_TRUE(is_passing_status(status));
  for (int status : {200, 301, 400, 401, 403, 404, 413, 422}) EXPECT_FALSE(is_passing_status(status));
}

// Answers connections one after the other: with the bytes given, and then for ever with the last ones, or by what the request is. Remembers what
// came.
class RawServer {
 public:
  explicit RawServer(std::vector<std::string> replies)
      : RawServer([this, replies](const std::string&) { return replies[std::min(replies.size() - 1, std::size_t(count))]; }) {}
  explicit RawServer(std::function<std::string(const std::string&)> reply) : reply_(std::move(reply)), socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(socket_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(socket_, 64) != 0) ADD_FAILURE() << "no socket";
    ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size);
    url = fmt::format("http://127.0.0.1:{}/v1", ntohs(address.sin_port));
    thread_ = std::thread([this] { serve(); });
  }
  ~RawServer() {
    ::shutdown(socket_, SHUT_RDWR);
    thread_.join();
    ::close(socket_);
  }
  std::string url;
  std::atomic<int> count = 0;
  std::vector<std::string> requests;  // read it when the answers are there

 private:
  void serve() {
    for (int connection; (connection = ::accept(socket_, nullptr, nullptr)) >= 0; ::close(connection)) {
      std::string text;
      char piece[65536];
      while (text.find("\"seed\":") == text.npos || !text.ends_with('}')) {
        const ssize_t n = ::recv(connection, piece, sizeof piece, 0);
        if (n <= 0) break;
        text.append(piece, std::size_t(n));
      }
      requests.push_back(text);
      const std::string reply = reply_(text);
      ++count;
      [[maybe_unused]] const ssize_t sent = ::send(connection, reply.data(), reply.size(), MSG_NOSIGNAL);
    }
  }
  std::function<std::string(const std::string&)> reply_;
  int socket_;
  std::thread thread_;
};

const std::string kAnswer = R"({"choices":[{"message":{"content":"yes"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}})";
std::string http(const std::string& status, const std::string& body, const std::string& headers = "") {
  return fmt::format("HTTP/1.1 {}\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n{}", status, body.size(), headers, body);
}
const ChatRequest kRequest{{{"user", "?"}}, 1, 1, 9, 1, "p"};

TEST(EndpointTeacher, AsksAgainUntilThereIsAWholeAnswer) {
  const std::string cut = http("200 OK", kAnswer).substr(0, 120);
  RawServer server({"", "HTTP/1.1 200 OK\r\n", cut, http("503 No", "{}"), http("200 OK", "{}"), "what?\r\n\r\n", http("200 OK", kAnswer)});
  ScratchFolder folder;
  std::atomic<int> notes = 0;
  EndpointOptions options{.base_url = server.url + "/", .model = "m", .api_key = "secret-key", .retry_wait = 0.001, .journal = folder / "j"};
  options.note = [&](const std::string& text) { notes += text.find("asked again in 0.0 s") != text.npos; };
  const ChatReply yes{"yes", 3, 1, false};
  {
    EndpointTeacher teacher(options);
    EXPECT_EQ(teacher.chat(kRequest), yes);
    EXPECT_EQ(teacher.chat(kRequest), yes);
    EXPECT_EQ(teacher.usage().at("p"), (TokenUsage{.answers = 1, .from_journal = 1, .retries = 6, .prompt_tokens = 3, .completion_tokens = 1}));
  }
  EndpointTeacher again(options);
  EXPECT_EQ(again.chat(kRequest), yes);
  EXPECT_EQ(again.usage().at("p"), (TokenUsage{.from_journal = 1}));
  EXPECT_EQ(server.count, 7);
  EXPECT_EQ(notes, 6);
  for (const std::string& request : server.requests) {
    EXPECT_TRUE(request.starts_with("POST /v1/chat/completions HTTP/1.1\r\n")) << request;
    EXPECT_NE(request.find("Authorization: Bearer secret-key\r\n"), std::string::npos);
    EXPECT_NE(request.find("Content-Type: application/json\r\n"), std::string::npos);
  }
  EXPECT_EQ(read_file(folder / "j").find("secret-key"), std::string::npos);
}

TEST(EndpointTeacher, SaysWhatTheUserMustMend) {
  ScratchFolder folder;
  auto complaint = [&](const std::string& reply, const std::string& secret) {
    RawServer server({reply});
    EndpointTeacher teacher({.base_url = server.url, .model = "m", .api_key = secret, .api_key_env = "MY_KEY", .journal = folder / "j"});
    const std::string message = complaint_of([&] { teacher.chat(kRequest); });
    EXPECT_EQ(server.count, 1) << message;
    return message;
  };
  const std::string wrong = complaint(http("401 No", "{\"error\":{\"message\":\"Incorrect API key: s3cret!\"}}"), "s3cret!");
  EXPECT_NE(wrong.find("does not accept the key in the environment variable MY_KEY (HTTP 401: Incorrect API key: ***)"), std::string::npos) << wrong;
  EXPECT_NE(complaint(http("403 No", "no"), "").find("the environment variable MY_KEY holds none"), std::string::npos);
  EXPECT_NE(complaint(http("404 No", "{\"message\":\"The model `m` does not exist.\"}"), "").find("The model `m` does not exist."),
            std::string::npos);
  EXPECT_NE(complaint(http("308 Over there", "", "Location: https://other/v1\r\n"), "").find("redirects to https://other/v1"), std::string::npos);
}

TEST(EndpointTeacher, EndsWhereThereIsNoAnswer) {
  ScratchFolder folder;
  auto kind = [&](EndpointTeacher& teacher) {
    try {
      teacher.chat(kRequest);
    } catch (const TeacherError& error) {
      return int(error.kind);
    }
    return -1;
  };
  {
    RawServer server({http("400 No", "{\"error\":{\"message\":\"maximum context length\"}}")});
    EndpointTeacher teacher({.base_url = server.url, .model = "m", .journal = folder / "a"});
    EXPECT_EQ(kind(teacher), int(TeacherError::Kind::refused));
    EXPECT_EQ(server.count, 1);
    EXPECT_EQ(teacher.usage().at("p"), (TokenUsage{.refused = 1}));
  }
  {
    RawServer server({http("500 No", "")});
    EndpointTeacher teacher({.base_url = server.url, .model = "m", .retries = 3, .retry_wait = 0.001, .journal = folder / "b"});
    EXPECT_THROW(teacher.chat(kRequest), InternalError);  // nobody was answered
    EXPECT_EQ(server.count, 4);
    EXPECT_EQ(teacher.usage().at("p"), (TokenUsage{.retries = 3, .unavailable = 1}));
  }
  RawServer server({http("429 Slow", "", "Retry-After: 500\r\n")});
  EndpointTeacher teacher({.base_url = server.url, .model = "m", .journal = folder / "c"});
  std::thread waits([&] { EXPECT_EQ(kind(teacher), int(TeacherError::Kind::stopped)); });
  while (server.count == 0) std::this_thread::yield();
  teacher.stop();
  waits.join();
  EXPECT_EQ(kind(teacher), int(TeacherError::Kind::stopped));
}

// One request that always fails is left out, as long as others are answered; an endpoint that never accepts any ends the work.
TEST(EndpointTeacher, TellsOneRequestFromTheEndpoint) {
  ScratchFolder folder;
  {
    RawServer server([](const std::string& request) { return request.ends_with("\"seed\":2}") ? http("200 OK", kAnswer) : http("500 No", ""); });
    EndpointTeacher teacher({.base_url = server.url, .model = "m", .retries = 4, .retry_wait = 0.05, .journal = folder / "a"});
    std::thread fails([&] { EXPECT_THROW(teacher.chat(kRequest), TeacherError); });
    while (server.count == 0) std::this_thread::yield();
    ChatRequest other = kRequest;
    other.seed = 2;
    EXPECT_EQ(teacher.chat(other).text, "yes");
    fails.join();
    EXPECT_EQ(server.count, 6);
  }
  RawServer server({http("422 No", "{\"detail\":\"no member seed\"}")});
  EndpointTeacher teacher({.base_url = server.url, .model = "m", .journal = folder / "b"});
  for (int i = 1; i < 8; ++i) EXPECT_THROW(teacher.chat(kRequest), TeacherError);
  EXPECT_NE(complaint_of([&] { teacher.chat(kRequest); }).find("refused the first 8 requests (HTTP 422: no member seed)"), std::string::npos);
}

TEST(EndpointTeacher, EqualRequestsAreOne) {
  RawServer server({http("200 OK", kAnswer)});
  ScratchFolder folder;
  EndpointTeacher teacher({.base_url = server.url, .model = "m", .journal = folder / "j"});
  std::vector<std::thread> threads;
  for (int t = 0; t < 16; ++t) threads.emplace_back([&] { EXPECT_EQ(teacher.chat(kRequest).text, "yes"); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(server.count, 1);
  EXPECT_EQ(teacher.journal().size(), 1);
}

}  // namespace
}  // namespace af
