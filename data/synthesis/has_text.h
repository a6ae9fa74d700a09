// Trajectories and their contrastive text (high-order action synthesis): at every step the options, which of them is chosen, what
// really came back; after the last step whether the whole was right.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/synthesis/sample.h"

namespace af {

struct TrajectoryStep {
  std::string content;                  // "<think>..</think>\n<tool_call>..</tool_call>", or an answer
  std::optional<std::string> response;  // to the byte; the last step may have none
};

struct Trajectory {
  std::string id, question;
  std::vector<TrajectoryStep> steps;
  std::string answer;                      // the right one
  std::vector<std::string> other_answers;  // that are as right
  std::optional<bool> outcome;
};

struct OptionSet {  // merged and shuffled
  std::vector<std::string> options;
  int original;  // index of the real step
};

// decision:                                   solutions (figure 5 of the paper):
//   <question>                                  <question>
//   Option 1:                                   I have 2 solutions
//   <step>                                      Solution [1]:
//   Option 2:                                   <step>
//   <step>                                      Solution [2]:
//                                               <step>
//   I will choose option 2                      I choice Solution [2]
//   <response>                                  <response>
//   ...                                         ...
//   My decision is Correct                      My decision is [Correct]
// After the last step comes the judgement, with no response where there was none.
enum class HasWording { decision, solutions };
const char* name_of(HasWording wording);
std::string decision_text(HasWording wording, int chosen);  // 1-based; ends with \n
std::string judgement_text(HasWording wording, bool correct);

// One OptionSet per step, whose options[original] is the step's content (InternalError where not). Every segment ends with \n but those that are
// kept to the byte: steps and responses; what they need to end a line stands at the beginning of the segment after them. The sample's
// id is the trajectory's, style the wording's name; without an outcome there is no judgement.
Sample render_has(const Trajectory& trajectory, std::span<const OptionSet> options, HasWording wording);

// The original among its alternatives, each text once, in an order that is uniform among all and depends on (seed, stream) alone.
OptionSet merge_options(std::string original, std::vector<std::string> alternatives, std::uint64_t seed, std::uint64_t stream);

}  // namespace af
