// af_synth fas: planning steps and reasoning about questions that are made from the memory.
#include <unistd.h>

#include "core/error.h"
#include "data/synthesis/fas.h"
#include "data/synthesis/in_order.h"
#include "launch/progress.h"
#include "launch/synth_commands.h"
#include "launch/synth_offline.h"
#include "launch/synth_teacher.h"
#include "launch/teacher_options.h"

namespace af {
namespace {

FasOptions fas_options_from(const Arguments& arguments) {
  FasOptions options;
  options.seed = std::uint64_t(arguments.integer("--seed", 1));
  if (const std::vector<std::string> styles = arguments.values("--styles"); !styles.empty()) options.styles = styles;
  const int styles = int(options.styles.size());
  options.styles_per_memory = int(arguments.integer("--styles-per-memory", std::min(options.styles_per_memory, styles), 1, styles));
  const std::string kind = arguments.value("--kind", "both");
  options.planning = kind != "reasoning", options.reasoning = kind != "planning";
  options.min_length = arguments.integer("--min-length", options.min_length, 0, INT32_MAX);
  options.max_length = arguments.integer("--max-length", options.max_length, std::max<std::int64_t>(options.min_length, 1), INT32_MAX);
  options.answer_judge = arguments.has("--answer-judge");
  options.temperature = temperature_of(arguments);
  options.max_tokens = reply_tokens_of(arguments, options.max_tokens);
  options.teacher = arguments.value("--model");
  return options;
}

int run_fas_endpoint(const Arguments& arguments) {
  const FasOptions options = fas_options_from(arguments);
  const std::int64_t count = arguments.integer("--count", 1000, 1);
  const Prompts prompts = prompts_of(arguments);
  const ToolSet tools = tools_of(arguments);
  const std::unique_ptr<Tokenizer> tokenizer = tokenizer_of(arguments);
  const TokenCounter length(tokenizer.get());
  Memory memory = Memory::open(arguments.value("--memory"), Memory::Mode::read);
  KnowledgeOptions knowledge;
  knowledge.seed = options.seed;
  KnowledgeSampler sampler(memory, knowledge);
  FasItems items(sampler, options);
  EndpointTeacher teacher(endpoint_from(arguments));
  const FasSynthesis synthesis(teacher, prompts, tools, length, options);

  const std::vector<std::string> inputs{arguments.value("--memory")};
  LineFile output(arguments.value("--output"), inputs), rejects(arguments.value("--rejects", output.path() + ".rejects.jsonl"), inputs);
  FasYields yields;
  TeacherFailures failures;
  Progress progress("fas", ::isatty(STDERR_FILENO) != 0, kSamples);
  std::int64_t done = 0, written = 0, asked = 0;
  progress.show(0, 0);
  in_order<FasItem, FasResult>(
      concurrency_of(arguments), [&] { return asked++ < count ? items.next() : std::nullopt; }, [&](FasItem& item) { return synthesis.run(item); },
      [&](FasResult& result) {
        yields.add(result);
        std::string failure;
        for (const Reject& reject : result.rejects) {
          if (reject.reason == kTeacherFailed) failure = reject.detail;
          rejects.write(to_json_line(reject));
        }
        failures.note(!failure.empty(), failure);
        for (const Sample& sample : result.samples) output.write(to_json_line(sample)), ++written;
        progress.show(double(++done) / double(count), written);
      },
      [&] { teacher.stop(); });
  if (done == 0) user_error("{}: no entity has enough statements to ask about", arguments.value("--memory"));
  rejects.finish();
  output.finish();
  progress.clear();
  fmt::print("{}: {} samples from {} questions; what was rejected is in {}\n{}{}", output.path(), written, done, rejects.path(),
             yields.text(options.planning, options.reasoning), usage_table(teacher.usage()));
  return failures.report(teacher.journal().path());
}

std::vector<Option> fas_options() {
  std::vector<Option> options{
      {"--memory", Takes::one_value, "MEM.db", "what is known (af_synth memory)", {}, true},
      {"--output", Takes::one_value, "X.jsonl", "the samples, a line each, for 'af_data tokenize'", {}, true},
      {"--count", Takes::one_value, "N", "how many: questions to try where the teacher is an endpoint, else samples (default 1000)", {}, false},
      {"--seed",
       Takes::one_value,
       "N",
       "the same seed, memory and answers give the same file (default 1); a larger --count goes on from a smaller",
       {},
       false},
      {"--styles", Takes::values, "STYLE", "of the questions (default: all)", fas_styles(), false},
  };
  append_options(options, endpoint_options());
  append_options(
      options,
      {{"--styles-per-memory",
        Takes::one_value,
        "K",
        "questions on the same knowledge, each in another style (default 2 of an endpoint, 5 offline)",
        {},
        false},
       {"--kind", Takes::one_value, "", "what is made of a question (default both)", {"planning", "reasoning", "both"}, false},
       {"--min-length", Takes::one_value, "N", "endpoint: tokens of a thought, at least (default 16)", {}, false},
       {"--max-length", Takes::one_value, "N", "endpoint: at most (default 4096)", {}, false},
       {"--tokenizer", Takes::one_value, "NAME", "endpoint: by which lengths are counted (default: four bytes a token)", {}, false},
       {"--answer-judge", Takes::nothing, "", "endpoint: where an answer differs in its words from the right one, the teacher is asked", {}, false},
       {"--rejects", Takes::one_value, "FILE", "endpoint: what was not kept, and why (default OUTPUT.rejects.jsonl)", {}, false}});
  append_options(options, offline_fas_options());
  return options;
}

}  // namespace

Command fas_command() {
  return {
      "fas",
      "first-order action synthesis: questions from the memory, with planning steps and reasoning",
      "",
      0,
      0,
      fas_options(),
      {"af_synth fas --memory mem.db --kind planning --split train --count 100000 --output plan.jsonl",
       "af_synth fas --memory mem.db --endpoint http://localhost:8000/v1 --model Qwen3-30B-A3B --count 10000 --output fas.jsonl",
       "af_synth fas --memory mem.db --endpoint http://localhost:8000/v1 --model m --styles multi_hop numerical --kind planning --output plan.jsonl"},
      [](const Arguments& arguments) {
        const bool endpoint = asks_endpoint(arguments);
        refuse_options(fas_options(), endpoint ? "offline" : "endpoint", arguments);
        return endpoint ? run_fas_endpoint(arguments) : run_fas_offline(arguments);
      }};
}

}  // namespace af
