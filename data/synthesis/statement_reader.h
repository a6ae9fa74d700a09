// What reads one kind of file into statements: whole lines of text in, statements and complaints out.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "data/json.h"
#include "data/synthesis/memory.h"
#include "data/text_blocks.h"

namespace af {

struct ReadStatements {
  static constexpr std::size_t kMostProblems = 100;  // kept; all are counted
  std::vector<Statement> statements;
  std::vector<LineProblem> problems;  // "FILE:LINE: what is wrong", safe to print
  std::int64_t skipped = 0;           // lines, or packages, that could not be used
  void add_problem(std::int64_t line, const std::string& what);
  void clear() { statements.clear(), problems.clear(), skipped = 0; }
};

// For one file, whose blocks come in their order.
class StatementReader {
 public:
  explicit StatementReader(std::string name) : name_(std::move(name)) {}
  virtual ~StatementReader() = default;
  virtual void read(const TextBlock& block, ReadStatements& out) = 0;

 protected:
  // Calls f(line, number) for each line that was readable, between the block's own problems, in order.
  template <class F>
  void for_each_line(const TextBlock& block, ReadStatements& out, F&& f) {
    auto problem = block.problems.begin();
    const auto report_before = [&](std::int64_t line) {
      for (; problem != block.problems.end() && problem->line <= line; ++problem)
        out.add_problem(problem->line, fmt::format("{}:{}: {}", name_, problem->line, problem->what));
    };
    std::string_view rest = block.text;
    for (std::int64_t number = block.first_line; !rest.empty(); ++number) {
      report_before(number);
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      f(rest.substr(0, end), number);
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    report_before(INT64_MAX);
  }
  std::string name_;
};

// A JSON object a line. A line that cannot be used is a problem; the others are unharmed.
class JsonLineReader : public StatementReader {
 public:
  using StatementReader::StatementReader;
  void read(const TextBlock& block, ReadStatements& out) override;

 protected:
  virtual void add(const JsonView& line, std::vector<Statement>& out) = 0;  // UserError: nothing of it is kept
};

// As a statement may have it: one line, runs of white space and control characters as one space, none at the ends.
std::string one_line(std::string_view text);

inline constexpr std::size_t kMostNameBytes = 200, kMostTextBytes = 1000;  // of an entity, of a statement

}  // namespace af
