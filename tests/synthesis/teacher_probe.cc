// The client of af_synth alone, for endpoint_suite.py and real_endpoint.py: --items chains of two requests each, the second holding the
// first's answer, by as many threads as --concurrency says. A line of JSON per item, in order; what it cost on stderr.
//   teacher_probe --endpoint URL --model NAME --items N --output FILE [--prompt TEXT] [options of the endpoint]
#include <atomic>
#include <cstdio>
#include <exception>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "data/file.h"
#include "launch/teacher_options.h"

namespace af {
namespace {

int probe(const Arguments& arguments) {
  const std::int64_t items = arguments.integer("--items", 1), max_tokens = arguments.integer("--max-tokens", 64);
  const std::string output = arguments.value("--output"), prompt = arguments.value("--prompt", "item {}");
  EndpointOptions options = connection_from(arguments);
  options.journal = output + ".journal";
  EndpointTeacher teacher(options);
  std::vector<std::string> lines(static_cast<std::size_t>(items));
  std::atomic<std::int64_t> next = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  auto ask = [&](std::int64_t item, const std::string& text, const char* purpose) {
    return teacher.chat({{{"user", text}}, 0.5, 0.9, int(max_tokens), std::uint64_t(item), purpose}).text;
  };
  auto work = [&] {
    for (std::int64_t i; (i = next++) < items;) {
      try {
        Json line;
        const std::string first = ask(i, fmt::format(fmt::runtime(prompt), i), "first");
        line.set("item", i);
        line.set("first", first);
        line.set("second", ask(i, "more of " + first, "second"));
        lines[std::size_t(i)] = line.dump() + "\n";
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
        teacher.stop();
        return;
      }
    }
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < concurrency_of(arguments); ++t) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  fmt::print(stderr, "{}", usage_table(teacher.usage()));
  if (failure) std::rethrow_exception(failure);
  std::string text;
  for (const std::string& line : lines) text += line;
  write_file(output, text);
  return kExitDone;
}

}  // namespace
}  // namespace af

int main(int argc, char** argv) {
  af::Command command{"",
                      "asks an endpoint",
                      "",
                      0,
                      0,
                      {{"--items", af::Takes::one_value, "N", "how many", {}, true},
                       {"--output", af::Takes::one_value, "FILE", "JSON lines; the journal beside it", {}, true},
                       {"--prompt", af::Takes::one_value, "TEXT", "{} is the item's number", {}, false},
                       {"--max-tokens", af::Takes::one_value, "N", "of an answer", {}, false}},
                      {"teacher_probe --endpoint http://localhost:8000/v1 --model m --items 10 --output x.jsonl"},
                      af::probe};
  for (const af::Option& option : af::connection_options()) command.options.push_back(option);
  return af::run_program({"teacher_probe", "asks an endpoint", {command}}, argc, argv);
}
