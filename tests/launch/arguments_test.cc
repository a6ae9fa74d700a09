#include "launch/arguments.h"

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
  EXPECT_EQ(parse({"a", "--output", "o", "--count", "-5"}).integer("--count", 7), -5);
  EXPECT_THROW(parse({"a", "--output", "o", "--count", "5x"}).integer("--count", 7), UserError);
  EXPECT_THROW(arguments.has("--undescribed"), InternalError);
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
