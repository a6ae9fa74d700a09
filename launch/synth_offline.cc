#include "launch/synth_offline.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <thread>
#include <tuple>

#include "core/error.h"
#include "data/synthesis/memory.h"
#include "data/synthesis/offline_batch.h"
#include "data/synthesis/offline_planning.h"
#include "data/synthesis/offline_trajectory.h"
#include "data/synthesis/world.h"
#include "launch/progress.h"
#include "launch/synth_teacher.h"

namespace af {
namespace {

constexpr std::size_t kStyleTries = 4;  // to make a question of one style about one entity
constexpr int kTries = 40;              // to make a trajectory of a given number and style

std::vector<Style> styles_of(const Arguments& arguments) {
  std::vector<Style> styles;
  for (int i = 0; i < kStyles; ++i) {
    const auto given = arguments.values("--styles");
    if (given.empty() || std::find(given.begin(), given.end(), kStyleNames[i]) != given.end()) styles.push_back(Style(i));
  }
  return styles;
}

QuestionOptions question_options(const Arguments& arguments) {
  QuestionOptions options;
  options.memory = arguments.value("--memory");
  const std::string split = arguments.value("--split", "all");
  options.split = split == "train" ? Split::train : split == "heldout" ? Split::heldout : Split::all;
  options.heldout_share = arguments.number("--heldout-share", options.heldout_share, 0, 1);
  options.described_share = arguments.value("--obfuscation") == "2" ? 0.7 : 0;
  std::tie(options.least_clues, options.most_clues) = arguments.range("--clues", {options.least_clues, options.most_clues}, 1, 6);
  return options;
}

FactIndex index_of(Memory& memory) {
  FactIndex index;
  const std::int64_t entities = memory.entity_count();
  for (std::int64_t e = 1; e <= entities; ++e) index.add_entity(memory.entity_name(e));
  memory.for_each_fact([&](std::int64_t e, std::string_view relation, std::string_view value) { index.add_fact(int(e - 1), relation, value); });
  index.finish();
  return index;
}

// A worker's own view of the memory.
WorldAccess world_of(const std::string& path, const WorldOptions& options) {
  struct Held {
    Memory memory;
    World world;
    Held(const std::string& file, const WorldOptions& o) : memory(Memory::open(file, Memory::Mode::read)), world(memory, o) {}
  };
  const auto held = std::make_shared<Held>(path, options);
  return {[held](const ToolCall& call) { return "<tool_response>\n" + held->world.call(call) + "\n</tool_response>"; },
          [held](int entity) { return held->world.page_url(entity + 1); }};
}

// How many options the steps of trajectories have.
struct StepCounts {
  std::int64_t steps = 0, options = 0, fewer = 0;
  void add(const Sample& sample, int least) {
    for (const Decision& decision : sample.decisions) ++steps, options += decision.options, fewer += decision.options < least;
  }
};

// All that a command needs, and the loop. least_options: that a step was asked to have; fewer are counted.
int run(const Arguments& arguments, int least_options, const std::function<MakeSample(const QuestionMaker&, const Wording&, const std::string& memory)>& worker) {
  const auto begin = std::chrono::steady_clock::now();
  const std::string path = arguments.value("--memory"), output = arguments.value("--output");
  BatchOptions options;
  options.count = arguments.integer("--count", 1000, 1);
  options.threads = int(arguments.integer("--threads", std::max(1u, std::thread::hardware_concurrency()), 1, 1024));
  Memory memory = Memory::open(path, Memory::Mode::read);
  const FactIndex index = index_of(memory);
  const QuestionMaker maker(index, question_options(arguments));
  const Wording wording(index, arguments.value("--obfuscation") == "0" ? Wording::Clues::bare : Wording::Clues::phrases);

  LineFile file(output, {path});
  Progress progress("samples", ::isatty(STDERR_FILENO) != 0);
  std::map<std::string, std::int64_t> kinds;
  StepCounts steps;
  std::int64_t bytes = 0, kept = 0;
  const BatchCounts counts = make_batch(
      options, [&] { return worker(maker, wording, path); },
      [&](const Sample& sample) {
        const std::string line = to_json_line(sample);
        file.write(line);
        steps.add(sample, least_options);
        ++kinds[sample.kind + " " + sample.style], bytes += std::int64_t(line.size());
        progress.show(double(++kept) / double(options.count), bytes);
      });
  progress.clear();
  if (counts.kept < options.count) {
    const std::string found = fmt::format("{} were near duplicates, {} tries came to nothing", counts.near_duplicates, counts.empty);
    if (counts.kept == 0) user_error("{}: no such sample can be made of it ({}); other --styles or --clues may", path, found);
    user_error("{}: only {} different samples can be made of it ({}): --count {} or less", path, counts.kept, found, counts.kept);
  }
  file.finish();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  fmt::print("{}: {} samples, {:.1f} MB of text, {:.1f} s\n", output, counts.kept, double(counts.bytes) / 1e6, seconds);
  for (const auto& [kind, count] : kinds) fmt::print("  {:<28}{:>10}\n", kind, count);
  fmt::print("  near duplicates dropped     {:>10}\n", counts.near_duplicates);
  if (steps.steps > 0) {
    fmt::print("  steps                       {:>10} with {:.2f} options each\n", steps.steps, double(steps.options) / double(steps.steps));
    fmt::print("  with fewer than asked for   {:>10}{}\n", steps.fewer,
               steps.fewer > 0 ? fmt::format(" (style synthesis: no {} values of which each has a page that shares it alone)", least_options) : "");
  }
  return kExitDone;
}

}  // namespace

std::vector<Option> offline_options() {
  return {{"--obfuscation",
           Takes::one_value,
           "",
           "offline: how clues are said: relation and value (0), a phrase with the value (1, the default), or as 1 with packages in the clues of "
           "planning "
           "and reasoning described by clues of their own (2)",
           {"0", "1", "2"},
           false},
          {"--styles", Takes::values, "STYLE", "offline: of questions (default: all)", {std::begin(kStyleNames), std::end(kStyleNames)}, false},
          {"--split",
           Takes::one_value,
           "",
           "offline: which entities may be asked for: all (default), or by a hash of their names those to train on, or the held-out ones",
           {"all", "train", "heldout"},
           false},
          {"--heldout-share", Takes::one_value, "SHARE", "offline: of the entities (default 0.1)", {}, false},
          {"--clues", Takes::one_value, "A..B", "offline: how many name an entity (default 2..3)", {}, false},
          {"--threads", Takes::one_value, "N", "offline: default: all cores; the result does not depend on it", {}, false}};
}

std::vector<Option> offline_fas_options() {
  std::vector<Option> options = offline_options();
  options.push_back(
      {"--styles-per-memory", Takes::one_value, "K", "differently styled questions on one entity's facts (offline: default 5)", {}, false});
  options.push_back({"--kind", Takes::one_value, "", "what is made of a question (default both)", {"planning", "reasoning", "both"}, false});
  options.push_back({"--reasoning-share", Takes::one_value, "SHARE", "offline: of samples that reason instead of planning (default 0.2)", {}, false});
  return options;
}

std::vector<Option> offline_has_options() {
  std::vector<Option> options = offline_options();
  options.push_back({"--count", Takes::one_value, "N", "offline: samples (default 1000)", {}, false});
  options.push_back({"--memory", Takes::one_value, "MEM.db", "offline: what is known (af_synth memory), to make trajectories of", {}, false});
  options.push_back({"--options", Takes::one_value, "A..B", "how many a step has (offline: default 2..5)", {}, false});
  options.push_back({"--wording", Takes::one_value, "", "of the choices (default both)", {"decision", "solutions", "both"}, false});
  options.push_back({"--failed-share", Takes::one_value, "SHARE", "offline: of trajectories that end with a wrong answer (default 0.25)", {}, false});
  options.push_back({"--results", Takes::one_value, "N", "offline: of a search (default 3)", {}, false});
  options.push_back({"--statements", Takes::one_value, "N", "offline: of a page, those that fit the goal best (default 3)", {}, false});
  options.push_back({"--thoughts",
                     Takes::one_value,
                     "",
                     "offline: of options: full (default), or brief ones that leave it to call and answer to say what the option is: fewer tokens",
                     {"full", "brief"},
                     false});
  options.push_back({"--most-bytes", Takes::one_value, "N", "offline: a longer sample is left out (default 6000)", {}, false});
  return options;
}

int run_fas_offline(const Arguments& arguments) {
  const std::vector<Style> styles = styles_of(arguments);
  const std::uint64_t seed = std::uint64_t(arguments.integer("--seed", 1));
  const int per_entity = int(arguments.integer("--styles-per-memory", kStyles, 1, 1000));
  const std::string kind = arguments.value("--kind", "both");
  const double reasoning_share = kind == "planning" ? 0 : kind == "reasoning" ? 1 : arguments.number("--reasoning-share", 0.2, 0, 1);
  return run(arguments, 0, [&](const QuestionMaker& maker, const Wording& wording, const std::string& path) -> MakeSample {
    const auto planner = std::make_shared<OfflinePlanner>(maker, wording, world_of(path, {}).page_url);
    return [=, &maker](std::int64_t number) -> std::optional<Sample> {
      Dice entity_dice(seed, hash_name(fmt::format("entity {}", number / per_entity))), dice(seed, hash_name(fmt::format("fas {}", number)));
      const int entity = maker.random_entity(entity_dice);
      const bool reasoning = dice.chance(reasoning_share);
      for (std::size_t s = 0; s < kStyleTries * styles.size(); ++s) {  // the style whose turn it is, then the others
        const Style style = styles[(std::size_t(number % per_entity) + s / kStyleTries) % styles.size()];
        const std::optional<Question> question = maker.make(style, entity, dice);
        if (!question) continue;
        std::optional<Sample> sample = reasoning ? planner->reasoning(*question, dice) : std::optional(planner->planning(*question, dice));
        if (!sample) continue;
        sample->id = fmt::format("fas-{}-{}", seed, number);
        return sample;
      }
      return std::nullopt;
    };
  });
}

int run_has_offline(const Arguments& arguments) {
  const std::vector<Style> styles = styles_of(arguments);
  const std::uint64_t seed = std::uint64_t(arguments.integer("--seed", 1));
  TrajectoryOptions options;
  std::tie(options.least_options, options.most_options) = arguments.range("--options", {options.least_options, options.most_options}, 2, 100);
  WorldOptions world;
  world.results = int(arguments.integer("--results", 3, 1, 1000));
  world.statements = std::size_t(arguments.integer("--statements", 3, 1, 1'000'000));
  options.failed_share = arguments.number("--failed-share", options.failed_share, 0, 1);
  options.brief_thoughts = arguments.value("--thoughts") == "brief";
  options.most_bytes = arguments.integer("--most-bytes", 6000, 500, 1 << 30);
  const std::string wording_name = arguments.value("--wording", "both");
  if (wording_name != "both") options.wording = wording_name == name_of(HasWording::decision) ? HasWording::decision : HasWording::solutions;
  return run(arguments, options.least_options, [&](const QuestionMaker& maker, const Wording& wording, const std::string& path) -> MakeSample {
    const auto trajectories = std::make_shared<TrajectoryMaker>(maker, wording, options);
    const WorldAccess access = world_of(path, world);
    return [=](std::int64_t number) -> std::optional<Sample> {
      Dice dice(seed, hash_name(fmt::format("has {}", number)));
      const Style style = styles[std::size_t(number) % styles.size()];
      for (int attempt = 0; attempt < kTries; ++attempt) {
        auto made = trajectories->make(style, dice, access);
        if (!made) continue;
        made->sample.id = fmt::format("has-{}-{}", seed, number);
        return std::move(made->sample);
      }
      return std::nullopt;
    };
  });
}

}  // namespace af
