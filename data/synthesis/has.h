// High-order action synthesis (arXiv 2509.13310): a real trajectory becomes a text in which every step is a choice among the real
// step and alternatives that were not executed. Where the alternatives come from is an AlternativeSource: a teacher that sees what was done so
// far, or the steps of other trajectories.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "data/synthesis/has_text.h"
#include "data/synthesis/prompts.h"
#include "data/synthesis/rejects.h"
#include "data/synthesis/teacher.h"
#include "data/synthesis/token_count.h"
#include "data/synthesis/tool_schema.h"

namespace af {

// Any thread may ask, about different trajectories at once.
class AlternativeSource {
 public:
  virtual ~AlternativeSource() = default;
  struct Found {
    std::vector<std::string> steps;                  // may repeat one another or the original
    std::int64_t unreadable = 0, invalid_tools = 0;  // that were proposed and cannot be used
  };
  // Which alternatives are asked for: beside the `given` ones that earlier rounds gave for this step.
  struct Wish {
    int count = 0, round = 0, given = 0;
  };
  // Up to `count` alternatives to step k (from 0), made for what came before it.
  virtual Found find(const Trajectory& trajectory, std::size_t k, const Wish& wish) = 0;
};

struct TeacherAlternativesOptions {
  std::uint64_t seed = 0;
  double temperature = 1, top_p = 0.95;
  int max_tokens = 8192;
};

class TeacherAlternatives : public AlternativeSource {
 public:
  TeacherAlternatives(Teacher& teacher, const Prompts& prompts, const ToolSet& tools, TeacherAlternativesOptions options)
      : teacher_(teacher), prompts_(prompts), tools_(tools), options_(options) {}
  Found find(const Trajectory& trajectory, std::size_t k, const Wish& wish) override;  // TeacherError

 private:
  Teacher& teacher_;
  const Prompts& prompts_;
  const ToolSet& tools_;
  TeacherAlternativesOptions options_;
};

// Steps of other trajectories, taken uniformly from those at the same place: of the first step a first one, of a later one a later one, of an
// answer an answer. So nothing in the options alone tells which is real; the question and what was done so far do. Trajectories with the
// same question or answer as the one at hand are left out.
class OtherTrajectories : public AlternativeSource {
 public:
  // Of each place at most so many steps are kept, drawn uniformly from all: memory does not grow with the input.
  explicit OtherTrajectories(std::uint64_t seed, std::size_t most_steps = 20'000) : seed_(seed), most_steps_(most_steps) {}
  void add(const Trajectory& trajectory);
  Found find(const Trajectory& trajectory, std::size_t k, const Wish& wish) override;

 private:
  struct Entry {
    std::string step, question, answer;  // the latter two normalised
  };
  static std::size_t place_of(const Trajectory& trajectory, std::size_t k);

  std::uint64_t seed_;
  std::size_t most_steps_;
  struct Place {
    std::vector<Entry> entries;
    std::uint64_t seen = 0;
  };
  Place places_[3];  // first steps, later ones, answers
};

struct HasOptions {
  std::uint64_t seed = 0;
  int min_options = 4, max_options = 4;  // of a step, with the real one: drawn uniformly per step
  HasWording wording = HasWording::decision;
  // Of the whole text. A text below min_tokens gets more options at every step, up to max_options each (then nothing is drawn: it begins with
  // min_options); one above max_tokens loses options, down to two.
  std::int64_t min_tokens = 0, max_tokens = INT64_MAX;
  int rounds = 3;  // after so many that gave nothing new, a source is not asked again for a step
  std::string teacher;
};

struct HasResult {
  std::optional<Sample> sample;
  std::optional<Reject> reject;
  std::int64_t tokens = 0;  // of the sample
  double fraction = 0;      // of the input, for who shows the progress
  std::int64_t steps = 0, short_of_options = 0, unreadable = 0, invalid_tools = 0, repeated = 0;
};

// The trajectory's document, or why there is none. TeacherError only where the teacher was stopped.
HasResult synthesize_has(const Trajectory& trajectory, AlternativeSource& source, const TokenCounter& length, const HasOptions& options);

struct HasYields {
  Yield trajectories;
  std::int64_t correct = 0, incorrect = 0, tokens = 0, options = 0, steps = 0, short_of_options = 0, unreadable = 0, invalid_tools = 0, repeated = 0;
  HasYields();
  void add(const HasResult& result);
  std::string text(bool exact_tokens) const;
};

}  // namespace af
