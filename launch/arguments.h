// The command line of every program: af_data COMMAND --option value ... positional ...
// One description gives parsing, --help, --version and all complaints at once (with "did you mean").
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace af {

inline constexpr const char* kVersion = "0.1.0";  // CMakeLists.txt's project version

enum class Takes { nothing, one_value, values };  // values: all arguments up to the next option; may be repeated

struct Option {
  std::string name;  // "--output"
  Takes takes = Takes::nothing;
  std::string value_name;  // "FILE", as --help shows it
  std::string help;
  std::vector<std::string> choices;  // the values allowed; empty: any
  bool required = false;
};

// What was given. Asking for an option that the command does not describe is a bug (InternalError).
class Arguments {
 public:
  bool has(const std::string& option) const;
  std::string value(const std::string& option, const std::string& otherwise = "") const;
  // Numbers, UserError where what is given is none, or not from `least` to `most`.
  std::int64_t integer(const std::string& option, std::int64_t otherwise, std::int64_t least = 0, std::int64_t most = INT64_MAX) const;
  double number(const std::string& option, double otherwise, double least, double most) const;
  // "4", which is 4 to 4, or "2..6".
  std::pair<int, int> range(const std::string& option, std::pair<int, int> otherwise, int least, int most) const;
  std::vector<std::string> values(const std::string& option) const;
  const std::vector<std::string>& positionals() const { return positionals_; }

 private:
  friend class CommandLine;
  std::map<std::string, std::vector<std::string>> options_;  // every described option, with the values given
  std::map<std::string, bool> given_;
  std::vector<std::string> positionals_;
};

struct Command {
  std::string name;         // "tokenize"; "" where the program has only one
  std::string summary;      // one line
  std::string positionals;  // "X.h5", as --help shows them
  std::size_t least_positionals = 0, most_positionals = 0;
  std::vector<Option> options;
  std::vector<std::string> examples;  // whole command lines
  std::function<int(const Arguments&)> run;
};

struct Program {
  std::string name;     // "af_data"
  std::string summary;  // one line
  std::vector<Command> commands;
};

std::string help_of(const Program& program);                          // the commands
std::string help_of(const Program& program, const Command& command);  // one command's options and examples

// Everything wrong at once, as one UserError.
Arguments parse_arguments(const Program& program, const Command& command, const std::vector<std::string>& arguments);

// main(): prints help or version, or runs the command; exceptions become messages on stderr and exit codes
// (UserError 2, everything else 1). No stack trace for the user's mistake.
int run_program(const Program& program, int argc, const char* const* argv);

}  // namespace af
