#include "launch/arguments.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <exception>

#include "core/error.h"

namespace af {
namespace {

std::string joined(const std::vector<std::string>& words, const std::string& between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : between) + word;
  return text;
}

std::string full_name(const Program& program, const Command& command) {
  return command.name.empty() ? program.name : program.name + " " + command.name;
}

std::string left_column(const Option& option) {
  std::string value = option.choices.empty() ? option.value_name : joined(option.choices, "|");
  return option.name + (option.takes == Takes::nothing ? "" : " " + value) + (option.takes == Takes::values ? "..." : "");
}

std::string unknown(const std::string& kind, const std::string& word, const std::vector<std::string>& known) {
  std::string near = nearest(word, known);
  return fmt::format("unknown {} '{}'{}", kind, word, near.empty() ? "" : fmt::format(", did you mean '{}'?", near));
}

void print(std::FILE* file, const std::string& text) { std::fwrite(text.data(), 1, text.size(), file); }

}  // namespace

bool Arguments::has(const std::string& option) const {
  AF_CHECK(given_.contains(option), "option {} is not described", option);
  return given_.at(option);
}

std::vector<std::string> Arguments::values(const std::string& option) const {
  AF_CHECK(options_.contains(option), "option {} is not described", option);
  return options_.at(option);
}

std::string Arguments::value(const std::string& option, const std::string& otherwise) const {
  std::vector<std::string> given = values(option);
  return given.empty() ? otherwise : given.back();
}

std::int64_t Arguments::integer(const std::string& option, std::int64_t otherwise, std::int64_t least, std::int64_t most) const {
  std::int64_t integer = otherwise;
  if (has(option)) {
    const std::string text = value(option);
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), integer);
    if (error != std::errc() || end != text.data() + text.size()) user_error("{} {}: expected an integer", option, text);
  }
  if (integer < least && most == INT64_MAX) user_error("{} {}: expected {} or more", option, integer, least);
  if (integer < least || integer > most) user_error("{} {}: expected {} to {}", option, integer, least, most);
  return integer;
}

double Arguments::number(const std::string& option, double otherwise, double least, double most) const {
  if (!has(option)) return otherwise;
  const std::string text = value(option);
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || !(number >= least && number <= most)) {
    user_error("{} {}: expected a number from {} to {}", option, text, least, most);
  }
  return number;
}

std::pair<int, int> Arguments::range(const std::string& option, std::pair<int, int> otherwise, int least, int most) const {
  if (!has(option)) return otherwise;
  const std::string text = value(option);
  const char *begin = text.data(), *end = begin + text.size();
  int first = 0;
  auto read = std::from_chars(begin, end, first);
  int last = first;
  if (read.ec == std::errc() && end - read.ptr > 2 && read.ptr[0] == '.' && read.ptr[1] == '.') read = std::from_chars(read.ptr + 2, end, last);
  if (read.ec != std::errc() || read.ptr != end || first < least || last < first || last > most) {
    user_error("{} {}: expected a number from {} to {}, or two as {}..{}", option, text, least, most, least, std::min(most, 2 * least));
  }
  return {first, last};
}

// Reads the arguments of one command from left to right, noting what is wrong.
class CommandLine {
 public:
  CommandLine(const Command& command, const std::vector<std::string>& arguments) : command_(command), arguments_(arguments) {
    for (const Option& option : command.options) parsed_.options_[option.name], parsed_.given_[option.name] = false;
    bool only_positionals = false;
    while (next_ < arguments_.size()) {
      const std::string& argument = arguments_[next_++];
      if (only_positionals || argument.size() < 2 || argument[0] != '-') {
        parsed_.positionals_.push_back(argument);
      } else if (argument == "--") {
        only_positionals = true;
      } else {
        read_option(argument);
      }
    }
    for (const Option& option : command.options) {
      if (option.required && !parsed_.given_[option.name]) problems_.push_back(fmt::format("{} is missing", left_column(option)));
    }
    std::size_t count = parsed_.positionals_.size();
    if (count < command.least_positionals) problems_.push_back(fmt::format("{} is missing", command.positionals));
    if (count > command.most_positionals) {
      problems_.push_back(fmt::format("'{}' is one argument too many", parsed_.positionals_[command.most_positionals]));
    }
  }
  Arguments parsed_;
  std::vector<std::string> problems_;

 private:
  void read_option(const std::string& argument) {
    std::size_t equals = argument.find('=');
    std::string name = argument.substr(0, equals);
    auto option = std::find_if(command_.options.begin(), command_.options.end(), [&](const Option& o) { return o.name == name; });
    if (option == command_.options.end()) {
      std::vector<std::string> known{"--help", "--version"};
      for (const Option& o : command_.options) known.push_back(o.name);
      problems_.push_back(unknown("option", name, known));
      return;
    }
    parsed_.given_[name] = true;
    std::vector<std::string> values;
    if (equals != std::string::npos) {
      if (option->takes == Takes::nothing) problems_.push_back(fmt::format("{} takes no value", name));
      values.push_back(argument.substr(equals + 1));
    } else {
      std::size_t most = option->takes == Takes::nothing ? 0 : option->takes == Takes::one_value ? 1 : arguments_.size();
      while (values.size() < most && next_ < arguments_.size() && !arguments_[next_].starts_with("--")) values.push_back(arguments_[next_++]);
      if (values.empty() && most > 0) problems_.push_back(fmt::format("{} needs a value", left_column(*option)));
    }
    for (const std::string& value : values) {
      bool allowed = option->choices.empty() || std::find(option->choices.begin(), option->choices.end(), value) != option->choices.end();
      if (!allowed) problems_.push_back(fmt::format("{} {}: expected {}", name, value, joined(option->choices, " or ")));
      parsed_.options_[name].push_back(value);
    }
  }

  const Command& command_;
  const std::vector<std::string>& arguments_;
  std::size_t next_ = 0;
};

Arguments parse_arguments(const Program& program, const Command& command, const std::vector<std::string>& arguments) {
  CommandLine line(command, arguments);
  if (line.problems_.empty()) return line.parsed_;
  std::string name = full_name(program, command);
  user_error("{}: {}\nTry '{} --help'.", name, joined(line.problems_, "\n" + std::string(name.size() + 2, ' ')), name);
}

std::string help_of(const Program& program, const Command& command) {
  std::string name = full_name(program, command), text = name + ": " + command.summary + "\n\nUsage: " + name;
  for (const Option& option : command.options) text += option.required ? " " + left_column(option) : "";
  if (!command.positionals.empty()) text += " " + command.positionals;
  text += " [options]\n\n";
  std::vector<Option> options = command.options;
  options.push_back({"--help", Takes::nothing, "", "this text", {}, false});
  options.push_back({"--version", Takes::nothing, "", "the program's version", {}, false});
  std::size_t width = 0;
  for (const Option& option : options) width = std::max(width, left_column(option).size());
  for (const Option& option : options) text += fmt::format("  {:<{}}  {}\n", left_column(option), width, option.help);
  text += "\nExamples:\n";
  for (const std::string& example : command.examples) text += "  " + example + "\n";
  return text;
}

std::string help_of(const Program& program) {
  if (program.commands.size() == 1 && program.commands[0].name.empty()) return help_of(program, program.commands[0]);
  std::string text = fmt::format("{}: {}\n\nUsage: {} COMMAND ...\n\n", program.name, program.summary, program.name);
  std::size_t width = 0;
  for (const Command& command : program.commands) width = std::max(width, command.name.size());
  for (const Command& command : program.commands) text += fmt::format("  {:<{}}  {}\n", command.name, width, command.summary);
  text += "\nExamples:\n";
  for (const Command& command : program.commands) text += "  " + command.examples.at(0) + "\n";
  return text + fmt::format("\n'{} COMMAND --help' says more. Exit status: 0 done, 1 failed, 2 the input is wrong.\n", program.name);
}

int run_program(const Program& program, int argc, const char* const* argv) {
  try {
    std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
    auto asks = [&](const char* option) {
      return std::find(arguments.begin(), std::find(arguments.begin(), arguments.end(), "--"), option) !=
             std::find(arguments.begin(), arguments.end(), "--");
    };
    if (asks("--version")) return print(stdout, fmt::format("{} {}\n", program.name, kVersion)), kExitDone;
    const Command* command = nullptr;
    std::vector<std::string> known;
    for (const Command& candidate : program.commands) {
      known.push_back(candidate.name);
      if (candidate.name.empty() || (!arguments.empty() && candidate.name == arguments[0])) command = &candidate;
    }
    if (asks("--help")) return print(stdout, command ? help_of(program, *command) : help_of(program)), kExitDone;
    if (!command && arguments.empty()) user_error("{}: which command? One of {}.\nTry '{} --help'.", program.name, joined(known, ", "), program.name);
    if (!command) user_error("{}: {}\nTry '{} --help'.", program.name, unknown("command", arguments[0], known), program.name);
    if (!command->name.empty()) arguments.erase(arguments.begin());
    return command->run(parse_arguments(program, *command, arguments));
  } catch (const UserError& error) {
    print(stderr, std::string(error.what()) + "\n");
    return kExitUsage;
  } catch (const std::exception& error) {
    print(stderr, fmt::format("{}: failed: {}\n", program.name, error.what()));
    return kExitFailed;
  }
}

}  // namespace af
