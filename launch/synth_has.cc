// af_synth has: real trajectories become choices among options.
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "core/error.h"
#include "core/random.h"
#include "data/synthesis/has.h"
#include "data/synthesis/in_order.h"
#include "data/synthesis/trajectory_reader.h"
#include "launch/data_inputs.h"
#include "launch/progress.h"
#include "launch/synth_commands.h"
#include "launch/synth_offline.h"
#include "launch/synth_teacher.h"
#include "launch/teacher_options.h"

namespace af {
namespace {

constexpr std::int64_t kMostReports = 20;  // lines that are named one by one

OutcomeFrom outcome_of(const Arguments& arguments) {
  const std::string outcome = arguments.value("--outcome", "either");
  return outcome == "given" ? OutcomeFrom::given : outcome == "match" ? OutcomeFrom::match : OutcomeFrom::either;
}

HasOptions has_options_from(const Arguments& arguments) {
  HasOptions options;
  options.seed = std::uint64_t(arguments.integer("--seed", 1));
  std::tie(options.min_options, options.max_options) = arguments.range("--options", {4, 4}, 2, 1000);
  options.min_tokens = arguments.integer("--min-tokens", 0, 0, INT32_MAX);
  options.max_tokens = arguments.integer("--max-tokens", INT32_MAX, std::max<std::int64_t>(options.min_tokens, 1), INT32_MAX);
  options.teacher = arguments.value("--model", "offline");
  return options;
}

class HasJob {
 public:
  explicit HasJob(const Arguments& arguments)
      : arguments_(arguments),
        options_(has_options_from(arguments)),
        sources_(text_sources(arguments.values("--trajectories"))),
        outcome_(outcome_of(arguments)),
        max_line_bytes_(arguments.integer("--max-line-bytes", 16 << 20, 1024, 1 << 30)),
        tokenizer_(tokenizer_of(arguments)),
        length_(tokenizer_.get()) {}

  int run() {
    if (!asks_endpoint(arguments_)) {
      OtherTrajectories others(options_.seed);
      TrajectoryReader reader(sources_, outcome_, max_line_bytes_, [](const std::string&) {});  // told of when they are read again
      for (Trajectory trajectory; reader.next(trajectory);) others.add(trajectory);
      return run(others, int(std::max(1u, std::thread::hardware_concurrency())), nullptr);
    }
    const Prompts prompts = prompts_of(arguments_);
    const ToolSet tools = tools_of(arguments_);
    EndpointTeacher teacher(endpoint_from(arguments_));
    TeacherAlternativesOptions options;
    options.seed = options_.seed;
    options.temperature = temperature_of(arguments_);
    options.max_tokens = reply_tokens_of(arguments_, options.max_tokens);
    TeacherAlternatives alternatives(teacher, prompts, tools, options);
    return run(alternatives, concurrency_of(arguments_), &teacher);
  }

 private:
  HasOptions options_for(const Trajectory& trajectory) const {
    HasOptions options = options_;
    const std::string wording = arguments_.value("--wording", "both");
    const bool solutions =
        wording == "both" ? random_below(options.seed, hash_name("has.wording " + trajectory.id), 0, 2) == 1 : wording == "solutions";
    options.wording = solutions ? HasWording::solutions : HasWording::decision;
    return options;
  }

  int run(AlternativeSource& source, int threads, EndpointTeacher* teacher) {
    std::vector<std::string> inputs;
    for (const TextSource& input : sources_) inputs.push_back(input.name);
    LineFile output(arguments_.value("--output"), inputs), rejects(arguments_.value("--rejects", output.path() + ".rejects.jsonl"), inputs);
    Progress progress("has", ::isatty(STDERR_FILENO) != 0, kSamples);
    TrajectoryReader reader(sources_, outcome_, max_line_bytes_, [&](const std::string& problem) {
      std::lock_guard lock(printing_);
      progress.clear();
      if (reported_++ < kMostReports) fmt::print(stderr, "{}\n", problem);
    });
    HasYields yields;
    TeacherFailures failures;
    progress.show(0, 0);
    in_order<Item, HasResult>(
        threads,
        [&]() -> std::optional<Item> {
          Item item;
          if (!reader.next(item.trajectory)) return std::nullopt;
          item.fraction = reader.fraction();
          return item;
        },
        [&](Item& item) {
          HasResult result = synthesize_has(item.trajectory, source, length_, options_for(item.trajectory));
          result.fraction = item.fraction;
          return result;
        },
        [&](HasResult& result) {
          yields.add(result);
          const bool failed = result.reject && result.reject->reason == kTeacherFailed;
          failures.note(failed, failed ? result.reject->detail : "");
          if (result.reject) rejects.write(to_json_line(*result.reject));
          if (result.sample) output.write(to_json_line(*result.sample));
          std::lock_guard lock(printing_);
          progress.show(result.fraction, yields.trajectories.kept());
        },
        [&] {
          if (teacher) teacher->stop();
        });
    progress.clear();
    if (reported_ > kMostReports) fmt::print(stderr, "... {} lines in all that cannot be used\n", reported_);
    if (yields.trajectories.tried() == 0) user_error("there is no trajectory in the input; nothing was written");
    if (arguments_.has("--strict") && reported_ > 0) user_error("{} lines cannot be used; nothing was written (--strict)", reported_);
    rejects.finish();
    output.finish();
    fmt::print("{}: {} samples from {} trajectories, {} lines skipped; what was rejected is in {}\n{}{}", output.path(), yields.trajectories.kept(),
               yields.trajectories.tried(), reported_, rejects.path(), yields.text(length_.exact()), teacher ? usage_table(teacher->usage()) : "");
    return teacher ? failures.report(teacher->journal().path()) : kExitDone;
  }

  struct Item {
    Trajectory trajectory;
    double fraction = 0;
  };

  const Arguments& arguments_;
  HasOptions options_;
  std::vector<TextSource> sources_;
  OutcomeFrom outcome_;
  std::int64_t max_line_bytes_;
  std::unique_ptr<Tokenizer> tokenizer_;
  TokenCounter length_;
  std::mutex printing_;
  std::int64_t reported_ = 0;
};

std::vector<Option> has_options() {
  std::vector<Option> options{
      {"--trajectories",
       Takes::values,
       "FILE",
       "real ones, JSON lines {\"messages\": [{\"role\", \"content\"}, ...], \"answer\", \"outcome\"}; also .gz and .zst; patterns may be quoted",
       {},
       false},
      {"--output", Takes::one_value, "X.jsonl", "the samples, a line each, for 'af_data tokenize'", {}, true},
      {"--seed", Takes::one_value, "N", "the same seed, input and answers give the same file (default 1)", {}, false},
      {"--options",
       Takes::one_value,
       "N|A..B",
       "options of a step, with the real one: N, or drawn from A to B for each step (default 4; from a memory 2..5). Where there are no more to be had "
       "a step has fewer, down to 2; how many steps have is said at the end",
       {},
       false},
      {"--wording",
       Takes::one_value,
       "",
       "\"I will choose option 2\" .. \"My decision is Correct\", or \"I have 3 solutions\" .. \"I choice Solution [3]\" .. \"My decision is "
       "[Correct]\", or some of "
       "both (default)",
       {"decision", "solutions", "both"},
       false},
      {"--outcome",
       Takes::one_value,
       "",
       "trajectories: whether a trajectory is right: by its member 'outcome' (given), by its last <answer> against 'answer' (match), or by the "
       "member where there "
       "is one "
       "(either, default)",
       {"given", "match", "either"},
       false},
      {"--min-tokens",
       Takes::one_value,
       "N",
       "trajectories: of a text; to reach it every step gets more options, from A up to B of --options A..B (long HAS: --options 4..200 --min-tokens "
       "65536 "
       "--max-tokens 131072)",
       {},
       false},
      {"--max-tokens", Takes::one_value, "N", "trajectories: of a text; above it steps lose options, down to two (short HAS: 32768)", {}, false},
      {"--tokenizer", Takes::one_value, "NAME", "trajectories: by which tokens are counted (default: four bytes a token)", {}, false},
      {"--max-line-bytes", Takes::one_value, "N", "trajectories: a longer line is reported and skipped (default 16777216)", {}, false},
      {"--strict", Takes::nothing, "", "trajectories: a line that cannot be used fails the whole (default: it is reported and skipped)", {}, false},
      {"--rejects", Takes::one_value, "FILE", "trajectories: what was not kept, and why (default OUTPUT.rejects.jsonl)", {}, false},
  };
  append_options(options, endpoint_options());
  append_options(options, offline_has_options());
  return options;
}

}  // namespace

Command has_command() {
  return {
      "has",
      "high-order action synthesis: every step of a trajectory becomes a choice among options",
      "",
      0,
      0,
      has_options(),
      {"af_synth has --memory mem.db --options 2..4 --split train --count 20000 --output has.jsonl",
       "af_synth has --trajectories trajectories.jsonl --options 2..5 --max-tokens 32768 --output has.jsonl",
       "af_synth has --trajectories 'part-*.jsonl.zst' --endpoint http://localhost:8000/v1 --model Qwen3-30B-A3B --outcome given --output has.jsonl",
       "af_synth has --trajectories trajectories.jsonl --options 4..200 --min-tokens 65536 --max-tokens 131072 --output long_has.jsonl"},
      [](const Arguments& arguments) {
        const bool memory = arguments.has("--memory");
        if (arguments.has("--trajectories") == memory)
          user_error("expected either --trajectories FILE or, to make trajectories of what is known, --memory MEM.db");
        const bool endpoint = asks_endpoint(arguments);
        if (memory && endpoint) user_error("--memory: only offline; a teacher behind an endpoint gives alternatives to the steps of --trajectories");
        refuse_options(has_options(), memory ? "trajectories" : "offline", arguments);
        if (!endpoint) refuse_options(has_options(), "endpoint", arguments);
        return memory ? run_has_offline(arguments) : HasJob(arguments).run();
      }};
}

}  // namespace af
