// Text that is no configuration is refused before the YAML library spends minutes on it.
#include <gtest/gtest.h>

#include <chrono>

#include "core/error.h"
#include "launch/config_yaml.h"
#include "launch/yaml_node.h"

namespace af {
namespace {

std::string refusal_of(const std::string& text) {
  const auto begin = std::chrono::steady_clock::now();
  std::string message;
  try {
    parse_yaml(text, "run.yaml");
  } catch (const UserError& error) {
    message = error.what();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  return message;
}

TEST(ConfigSize, ManyOpenBracketsAreRefusedAtTheirLine) {
  std::string nested = "a: 1\nb: ";
  for (int i = 0; i < 200'000; ++i) nested += "{\"a\":";
  EXPECT_EQ(refusal_of(nested), "run.yaml:2: more than 1000 brackets are open");
  std::string list = "b: [";
  for (int i = 0; i < 3000; ++i) list += "[1], {a: 1}, ";  // closed ones do not count
  EXPECT_EQ(refusal_of(list + "1]\n"), "");
}

// A plain text goes on over lines: what looks like a list may be a name of half a megabyte, which is printed several times.
TEST(ConfigSize, LongValuesAreRefusedAtTheirPlace) {
  EXPECT_EQ(refusal_of("a: 1\nb: " + std::string(8192, 'x')), "");
  std::string text = "a: 1\nb: x\n ";
  for (int i = 0; i < 100'000; ++i) text += " -";
  EXPECT_EQ(refusal_of(text), "run.yaml:2:4: a value of 200001 bytes; it has at most 8192");
}

TEST(ConfigSize, AMegabyteIsNoConfiguration) {
  EXPECT_EQ(refusal_of(std::string(1 << 20, '#')), "");
  EXPECT_EQ(refusal_of(std::string((1 << 20) + 1, '#')), "run.yaml: has 1048577 bytes; a configuration has at most 1048576");
}

}  // namespace
}  // namespace af
