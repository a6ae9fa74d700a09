// High-order action synthesis without a teacher: whole trajectories over a world of tools that are answered from the memory,
// with alternatives at every step that are as plausible as the step itself.
//
// Options are exchangeable by construction: first come the candidates (entities that share clues and are all identified by
// others, all relations that may be asked about, all their values, which all differ), each of which could be the right one; only
// then the right one is drawn, uniformly, and the question is about it. Which options are shown with it is drawn uniformly, too. So
// the options alone say nothing; the question and what came back before decide.
//
// A failed trajectory takes a wrong candidate at some step, goes on from there, and ends with a wrong answer; the right candidate
// of that step stands among the options.
#pragma once
#include <functional>
#include <optional>

#include "data/synthesis/has_text.h"
#include "data/synthesis/offline_question.h"
#include "data/synthesis/offline_wording.h"
#include "data/synthesis/tool_schema.h"

namespace af {

struct TrajectoryOptions {
  int least_options = 2, most_options = 5;  // of a step
  double failed_share = 0.25;
  std::int64_t most_bytes = 12000;                   // a longer sample is left out
  std::optional<HasWording> wording = std::nullopt;  // both, by turns at random
  bool brief_thoughts = false;                       // they say nothing of the option: its call or answer alone tells what it is
};

struct WorldAccess {  // the tools and where pages are
  std::function<std::string(const ToolCall&)> call;
  std::function<std::string(int entity)> page_url;
};

struct MadeTrajectory {
  Trajectory trajectory;
  std::vector<OptionSet> options;
  Question question;
  Sample sample;
};

class TrajectoryMaker {
 public:
  TrajectoryMaker(const QuestionMaker& maker, const Wording& wording, const TrajectoryOptions& options);
  // nullopt where chance led to none.
  std::optional<MadeTrajectory> make(Style style, Dice& dice, const WorldAccess& world) const;

 private:
  struct Step {                            // one step of the trajectory in the making
    std::vector<std::string> candidates;   // contents; each could be the right one
    int right, taken;                      // of the candidates
    std::vector<int> shown = {};           // candidates that must be among the options, beside these two
    std::vector<std::string> needed = {};  // what the response to the taken one must tell
  };
  struct Draft {
    Question question;
    std::vector<Step> steps;
    bool right = true;
  };
  std::optional<Draft> chain(Style style, Dice& dice, const WorldAccess& world) const;
  std::optional<Draft> pair(Dice& dice, const WorldAccess& world) const;
  std::optional<Draft> star(Dice& dice, const WorldAccess& world) const;

  std::string search(const std::vector<int>& clues, Dice& dice) const;
  std::string visit(const std::vector<int>& entities, const std::string& goal, Dice& dice, const WorldAccess& world) const;
  std::string answer(const std::string& what, const std::string& value, Dice& dice) const;
  OptionSet options_of(const Step& step, Dice& dice) const;

  const QuestionMaker& maker_;
  const FactIndex& index_;
  const Wording& wording_;
  TrajectoryOptions options_;
};

}  // namespace af
