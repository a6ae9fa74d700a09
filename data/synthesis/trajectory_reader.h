// Real trajectories: JSON lines {"messages": [{"role", "content"}, ...], "answer": .., "outcome": .., "id": ..}.
//   messages  system (any number, not used), user: the question, then assistant and response in turns. A response is a user message that
//             begins with <tool_response>, or a message of the role tool. The question is the first user message; where that describes the
//             tools (<tools>..</tools>, as in the released trajectories), what follows the last "User:" at the beginning of a line after it.
//   answer    the right one: a string, or a list of strings that are all right (lists may nest)
//   outcome   true, false, 1 or 0: whether the trajectory's answer is right
//   id        a string or an integer; without one FILE:LINE is
// Other members are ignored. Contents are kept to the byte; "<|...|>" in them is text.
#pragma once
#include <functional>
#include <memory>
#include <span>

#include "data/synthesis/has_text.h"
#include "data/text_blocks.h"

namespace af {

class JsonView;

// given: the member; match: whether the last <answer> says or mentions one of 'answer' (answer_match.h); either: the member where there is one.
enum class OutcomeFrom { either, given, match };

// UserError that names the message: tags that do not come in pairs, turns in another order, no answer to judge by.
Trajectory trajectory_from(const JsonView& line, OutcomeFrom outcome);

// A line that cannot be used (broken JSON, no UTF-8, longer than max_line_bytes, no trajectory) is told to `problem`, "FILE:LINE: ...", and passed
// over.
class TrajectoryReader {
 public:
  using Problem = std::function<void(const std::string&)>;
  TrajectoryReader(std::span<const TextSource> sources, OutcomeFrom outcome, std::int64_t max_line_bytes, Problem problem);

  bool next(Trajectory& trajectory);  // false: there are no more
  std::int64_t skipped() const { return skipped_; }
  double fraction() const;  // of the files' bytes

 private:
  bool next_line(std::string_view& line, std::int64_t& number);
  void tell(const std::string& what);

  std::span<const TextSource> sources_;
  OutcomeFrom outcome_;
  std::int64_t max_line_bytes_;
  Problem problem_;
  std::size_t source_ = 0;
  std::unique_ptr<BlockReader> reader_;
  TextBlock block_;
  std::string_view rest_;     // of the block's text
  std::int64_t line_ = 0;     // of the next in rest_
  std::size_t reported_ = 0;  // of the block's problems
  std::int64_t skipped_ = 0, finished_bytes_ = 0, all_bytes_ = 0;
};

}  // namespace af
