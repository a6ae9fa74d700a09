#include "launch/arguments.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace af {
namespace {

Program program() {
  Program program{"af_test", "tests", {}};
  program.commands.push_back({"pack",
                              "packs things",
                              "FILE...",
                              1,
                              2,
                              {{"--output", Takes::one_value, "FILE", "where to", {}, true},
                               {"--input", Takes::values, "FILE", "what", {}, false},
                               {"--mode", Takes::one_value, "", "how", {"split", "join"}, false},
                               {"--count", Takes::one_value, "N", "how many", {}, false},
                               {"--strict", Takes::nothing, "", "stop at the first", {}, false}},
                              {"af_test pack --output x a b"},
                              [](const Arguments& arguments) {
                                if (arguments.has("--strict")) user_error("strict: {}", arguments.integer("--count", 3));
                                return 0;
                              }});
  return program;
}

Arguments parse(const std::vector<std::string>& words) { return parse_arguments(program(), program().commands[0], words); }

std::string complaint(const std::vector<std::string>& words) {
  try {
    parse(words);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

int run(std::vector<const char*> words) {
  words.insert(words.begin(), "af_test");
  return run_program(program(), int(words.size()), words.data());
}

TEST(Arguments, ValuesPositionalsAndRepetition) {
  Arguments arguments = parse({"a", "--input", "x", "y", "--output=o=1", "--input", "z", "--strict", "--", "--b"});
  EXPECT_EQ(arguments.values("--input"), (std::vector<std::string>{"x", "y", "z"}));
  EXPECT_EQ(arguments.value("--output"), "o=1");
  EXPECT_EQ(arguments.positionals(), (std::vector<std::string>{"a", "--b"}));
  EXPECT_TRUE(arguments.has("--strict"));
  EXPECT_FALSE(arguments.has("--mode"));
  EXPECT_EQ(arguments.value("--mode", "split"), "split");
  EXPECT_EQ(arguments.integer("--count", 7), 7);
  EXPECT_THROW(arguments.has("--undescribed"), InternalError);
}

// What the reading of `--count WORD` complains of; "": nothing.
template <class Read>
std::string complaint_of(const char* word, Read&& read) {
  try {
    read(parse({"a", "--output", "o", "--count", word}));
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(Arguments, NumbersWithinTheirBounds) {
  const auto positive = [](const Arguments& a) { a.integer("--count", 7, 1); };
  EXPECT_EQ(parse({"a", "--output", "o", "--count", "-5"}).integer("--count", 7, -5, 5), -5);
  EXPECT_EQ(complaint_of("1", positive), "");
  EXPECT_EQ(complaint_of("0", positive), "--count 0: expected 1 or more");
  EXPECT_EQ(complaint_of("5x", positive), "--count 5x: expected an integer");
  EXPECT_EQ(complaint_of("9", [](const Arguments& a) { a.integer("--count", 7, 1, 8); }), "--count 9: expected 1 to 8");

  const auto share = [](const Arguments& a) { a.number("--count", 0.5, 0, 1); };
  EXPECT_EQ(parse({"a", "--output", "o", "--count", "0.25"}).number("--count", 0.5, 0, 1), 0.25);
  EXPECT_EQ(parse({"a", "--output", "o"}).number("--count", 0.5, 0, 1), 0.5);
  for (const char* word : {"1.5", "-0.1", "half", "0.5x", "nan"}) {
    EXPECT_EQ(complaint_of(word, share), fmt::format("--count {}: expected a number from 0 to 1", word));
  }

  using Pair = std::pair<int, int>;
  const auto range = [](const Arguments& a) { return a.range("--count", {4, 5}, 2, 100); };
  EXPECT_EQ(range(parse({"a", "--output", "o"})), Pair(4, 5));
  EXPECT_EQ(range(parse({"a", "--output", "o", "--count", "3"})), Pair(3, 3));
  EXPECT_EQ(range(parse({"a", "--output", "o", "--count", "2..6"})), Pair(2, 6));
  for (const char* word : {"1", "101", "6..2", "2..101", "2..", "2.6", "..6", "2..6..7"}) {
    EXPECT_EQ(complaint_of(word, range), fmt::format("--count {}: expected a number from 2 to 100, or two as 2..4", word));
  }
}

TEST(Arguments, AllComplaintsAtOnceWithTheNearestName) {
  std::string text = complaint({"--outptu", "x", "--mode", "splat", "--strict=1", "--count"});
  EXPECT_NE(text.find("unknown option '--outptu', did you mean '--output'?"), std::string::npos) << text;
  EXPECT_NE(text.find("--mode splat: expected split or join"), std::string::npos) << text;
  EXPECT_NE(text.find("--strict takes no value"), std::string::npos) << text;
  EXPECT_NE(text.find("--count N needs a value"), std::string::npos) << text;
  EXPECT_NE(text.find("--output FILE is missing"), std::string::npos) << text;
  EXPECT_NE(complaint({"--output", "o"}).find("FILE... is missing"), std::string::npos);
  EXPECT_NE(complaint({"--output", "o", "--", "a", "b", "c"}).find("'c' is one argument too many"), std::string::npos);
}

TEST(Arguments, ExitCodes) {
  EXPECT_EQ(run({"pack", "--output", "o", "a"}), 0);
  EXPECT_EQ(run({"pack", "--output", "o", "--strict", "--", "a"}), 2);
  EXPECT_EQ(run({"pcak"}), 2);
  EXPECT_EQ(run({}), 2);
  EXPECT_EQ(run({"--help"}), 0);
  EXPECT_EQ(run({"pack", "--help"}), 0);
  EXPECT_EQ(run({"--version"}), 0);
}

TEST(Arguments, HelpNamesEverything) {
  std::string text = help_of(program(), program().commands[0]);
  for (const char* part : {"--output FILE", "--input FILE...", "--mode split|join", "--strict", "--help", "af_test pack --output x a b"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
}

}  // namespace
}  // namespace af
