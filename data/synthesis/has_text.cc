#include "data/synthesis/has_text.h"

#include <unordered_set>

#include "core/error.h"
#include "core/random.h"

namespace af {
namespace {

// A line begins here: `text` is for a segment that follows what is kept to the byte.
std::string on_new_line(const std::vector<SampleSegment>& before, std::string text) {
  const bool ended = before.empty() || before.back().text.empty() || before.back().text.back() == '\n';
  return ended ? text : "\n" + text;
}

void append_options(std::vector<SampleSegment>& segments, const OptionSet& set, HasWording wording) {
  const bool solutions = wording == HasWording::solutions;
  if (solutions) segments.push_back({Role::other, on_new_line(segments, fmt::format("I have {} solutions\n", set.options.size()))});
  for (std::size_t i = 0; i < set.options.size(); ++i) {
    segments.push_back({Role::other, on_new_line(segments, solutions ? fmt::format("Solution [{}]:\n", i + 1) : fmt::format("Option {}:\n", i + 1))});
    append_step(segments, set.options[i]);
  }
}

}  // namespace

const char* name_of(HasWording wording) { return wording == HasWording::decision ? "decision" : "solutions"; }

std::string decision_text(HasWording wording, int chosen) {
  return wording == HasWording::decision ? fmt::format("I will choose option {}\n", chosen) : fmt::format("I choice Solution [{}]\n", chosen);
}

std::string judgement_text(HasWording wording, bool correct) {
  const char* word = correct ? "Correct" : "Incorrect";
  return wording == HasWording::decision ? fmt::format("My decision is {}\n", word) : fmt::format("My decision is [{}]\n", word);
}

Sample render_has(const Trajectory& trajectory, std::span<const OptionSet> options, HasWording wording) {
  AF_CHECK(options.size() == trajectory.steps.size(), "{}: {} sets of options for {} steps", trajectory.id, options.size(), trajectory.steps.size());
  Sample sample{trajectory.id, "has", name_of(wording), {}, {}, trajectory.answer, {}, trajectory.outcome, {}};
  std::vector<SampleSegment>& segments = sample.segments;
  segments.push_back({Role::user, trajectory.question + "\n"});
  // A line's end after what is kept to the byte is a segment of its own where the next one's text is given by the wording alone.
  const auto end_line = [&] {
    if (const std::string end = on_new_line(segments, ""); !end.empty()) segments.push_back({Role::other, end});
  };
  for (std::size_t k = 0; k < options.size(); ++k) {
    const TrajectoryStep& step = trajectory.steps[k];
    const OptionSet& set = options[k];
    AF_CHECK(set.original >= 0 && std::size_t(set.original) < set.options.size() && set.options[std::size_t(set.original)] == step.content,
             "{}: option {} of {} at step {} is not the original", trajectory.id, set.original + 1, set.options.size(), k + 1);
    append_options(segments, set, wording);
    end_line();
    sample.decisions.push_back({int(segments.size()), int(set.options.size()), set.original + 1});
    segments.push_back({Role::decision, decision_text(wording, set.original + 1)});
    if (step.response) segments.push_back({Role::observation, *step.response});
  }
  if (trajectory.outcome) {
    end_line();
    segments.push_back({Role::judgement, judgement_text(wording, *trajectory.outcome)});
  }
  return sample;
}

OptionSet merge_options(std::string original, std::vector<std::string> alternatives, std::uint64_t seed, std::uint64_t stream) {
  std::unordered_set<std::string> known{original};
  OptionSet set;
  set.options.push_back(std::move(original));
  for (std::string& alternative : alternatives) {
    if (known.insert(alternative).second) set.options.push_back(std::move(alternative));
  }
  set.original = 0;
  for (std::size_t i = set.options.size() - 1; i > 0; --i) {  // Fisher-Yates
    const std::size_t j = random_below(seed, stream, i, i + 1);
    std::swap(set.options[i], set.options[j]);
    if (std::size_t(set.original) == i) {
      set.original = int(j);
    } else if (std::size_t(set.original) == j) {
      set.original = int(i);
    }
  }
  return set;
}

}  // namespace af
