#include "launch/synth_teacher.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "core/error.h"
#include "data/file.h"
#include "launch/teacher_options.h"

namespace af {
namespace {

constexpr std::int64_t kMostFailuresInARow = 20;

}  // namespace

std::vector<Option> endpoint_options() {
  std::vector<Option> options{
      {"--teacher",
       Takes::one_value,
       "",
       "who writes: offline (no server, from what is there; the default), or an endpoint (where --endpoint is given)",
       {"offline", "endpoint"},
       false},
  };
  append_options(options, connection_options());
  append_options(
      options, {
                   {"--journal",
                    Takes::one_value,
                    "FILE",
                    "endpoint: keeps every answer (default OUTPUT.journal.jsonl): the same command, given again, asks only what is not in it",
                    {},
                    false},
                   {"--temperature", Takes::one_value, "T", "endpoint: 0 to 2 (default 1); judges are asked at 0", {}, false},
                   {"--max-reply-tokens",
                    Takes::one_value,
                    "N",
                    "endpoint: of one reply; of one that is cut off only whole alternatives are used (has), or nothing (fas)",
                    {},
                    false},
                   {"--prompts",
                    Takes::one_value,
                    "FOLDER",
                    "endpoint: files NAME.txt in the place of the prompts that are compiled in (examples/synthesis/prompts)",
                    {},
                    false},
                   {"--tools",
                    Takes::one_value,
                    "FILE",
                    "endpoint: the agent's tools as JSON in OpenAI's format (default: search, visit, google_scholar, parse_file, PythonInterpreter)",
                    {},
                    false},
               });
  return options;
}

void append_options(std::vector<Option>& options, const std::vector<Option>& more) {
  for (const Option& option : more) {
    const bool known = std::any_of(options.begin(), options.end(), [&](const Option& o) { return o.name == option.name; });
    if (!known) options.push_back(option);
  }
}

void refuse_options(const std::vector<Option>& options, const std::string& mode, const Arguments& arguments) {
  for (const Option& option : options) {
    if (option.help.starts_with(mode + ": ") && arguments.has(option.name)) {
      user_error("{}: only for {}", option.name,
                 mode == "endpoint"  ? "a teacher behind an endpoint (--endpoint URL)"
                 : mode == "offline" ? "the offline teacher and a --memory"
                                     : "--" + mode);
    }
  }
}

bool asks_endpoint(const Arguments& arguments) {
  const bool endpoint = arguments.value("--teacher", arguments.has("--endpoint") ? "endpoint" : "offline") == "endpoint";
  if (endpoint && !arguments.has("--endpoint")) user_error("--teacher endpoint: --endpoint URL is missing");
  if (endpoint && !arguments.has("--model")) user_error("--endpoint {}: --model NAME is missing", arguments.value("--endpoint"));
  std::vector<std::string> of_endpoint{"--journal", "--temperature", "--max-reply-tokens", "--prompts"};
  for (const Option& option : connection_options()) of_endpoint.push_back(option.name);
  for (const std::string& option : of_endpoint) {
    if (!endpoint && arguments.has(option)) user_error("{}: only for a teacher behind an endpoint (--teacher endpoint --endpoint URL)", option);
  }
  return endpoint;
}

EndpointOptions endpoint_from(const Arguments& arguments) {
  EndpointOptions options = connection_from(arguments);
  options.journal = arguments.value("--journal", arguments.value("--output") + ".journal.jsonl");
  return options;
}

double temperature_of(const Arguments& arguments) { return arguments.number("--temperature", 1, 0, 2); }
int reply_tokens_of(const Arguments& arguments, int otherwise) { return int(arguments.integer("--max-reply-tokens", otherwise, 16, 1 << 20)); }

Prompts prompts_of(const Arguments& arguments) {
  return arguments.has("--prompts") ? Prompts::with_folder(arguments.value("--prompts")) : Prompts::compiled_in();
}

ToolSet tools_of(const Arguments& arguments) {
  return arguments.has("--tools") ? ToolSet::from_file(arguments.value("--tools")) : ToolSet::built_in();
}

std::unique_ptr<Tokenizer> tokenizer_of(const Arguments& arguments) {
  return arguments.has("--tokenizer") ? make_tokenizer(arguments.value("--tokenizer")) : nullptr;
}

LineFile::LineFile(std::string path, const std::vector<std::string>& inputs) : path_(std::move(path)) {
  check_output(path_, inputs);
  descriptor_ = ::open((path_ + ".part").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) user_error("{}.part: cannot be written: {}", path_, std::strerror(errno));
}

LineFile::~LineFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink((path_ + ".part").c_str());
}

void LineFile::flush() {
  for (std::size_t at = 0; at < buffer_.size();) {
    const ssize_t n = ::write(descriptor_, buffer_.data() + at, buffer_.size() - at);
    if (n < 0 && errno != EINTR) user_error("{}.part: cannot be written: {}", path_, std::strerror(errno));
    if (n > 0) at += std::size_t(n);
  }
  buffer_.clear();
}

void LineFile::write(const std::string& line) {
  buffer_ += line;
  if (buffer_.size() >= 1 << 20) flush();
}

void LineFile::finish() {
  flush();
  if (::fsync(descriptor_) != 0) user_error("{}.part: cannot be written: {}", path_, std::strerror(errno));
  if (std::rename((path_ + ".part").c_str(), path_.c_str()) != 0) user_error("{}: cannot be written: {}", path_, std::strerror(errno));
  ::close(descriptor_);
  descriptor_ = -1;
}

void TeacherFailures::note(bool failed, const std::string& why) {
  failed_ += failed;
  in_a_row_ = failed ? in_a_row_ + 1 : 0;
  if (in_a_row_ >= kMostFailuresInARow) {
    user_error("the teacher failed at {} in a row, the last time: {}\nWhat was answered is in the journal: the same command goes on from there.",
               in_a_row_, why);
  }
}

int TeacherFailures::report(const std::string& journal) const {
  if (failed_ == 0) return kExitDone;
  fmt::print(stderr, "the teacher failed at {}; the same command tries these again and takes the others from {}\n", failed_, journal);
  return kExitFailed;
}

}  // namespace af
