// The JSON value: what is read exactly, what is refused and with which message, and that writing reads back the same.
#include "data/json.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace af {
namespace {

std::string error_of(const std::string& text) {
  try {
    Json::parse(text, "f.json");
  } catch (const UserError& e) {
    return e.what();
  }
  return "";
}

template <class Function>
std::string user_error_of(Function function) {
  try {
    function();
  } catch (const UserError& e) {
    return e.what();
  }
  return "";
}

TEST(Json, KeepsIntegersExactlyAndTheOrderOfMembers) {
  const Json json = Json::parse(R"({"z": 9223372036854775807, "a": -9223372036854775808, "m": 1.0, "s": "\u00e9\n", "n": null, "t": true})", "f");
  EXPECT_EQ(json.find("z")->integer(), INT64_MAX);
  EXPECT_EQ(json.find("a")->integer(), INT64_MIN);
  EXPECT_FALSE(json.find("m")->is_integer());  // written with a fraction
  EXPECT_EQ(json.find("m")->number(), 1.0);
  EXPECT_EQ(json.find("s")->string(), "\xc3\xa9\n");
  EXPECT_TRUE(json.find("n")->is_null());
  EXPECT_TRUE(json.find("t")->boolean());
  EXPECT_EQ(json.find("q"), nullptr);
  EXPECT_EQ(json.object()[0].first + json.object()[1].first + json.object()[2].first, "zam");
  const Json big = Json::parse("18446744073709551615", "f");  // beyond int64: a number, but no integer
  EXPECT_FALSE(big.is_integer());
  EXPECT_EQ(big.number(), 18446744073709551615.0);
}

TEST(Json, WritesWhatItReadsBack) {
  const char* texts[] = {
      "null", "true", "[]", "{}", "[1, -2, 3.5, 1e-300, 0.1, \"a\\\"b\\\\c\\u0001\\u0000d\"]", "{\"a\": {\"b\": [[], {}, [null]]}}", "1.0"};
  for (const char* text : texts) {
    const Json json = Json::parse(text, "f");
    for (const int indent : {-1, 0, 2}) EXPECT_EQ(Json::parse(json.dump(indent), "again"), json) << text;
  }
  EXPECT_EQ(Json::parse("[1,{\"a\":2,\"b\":[]}]", "f").dump(), "[1,{\"a\":2,\"b\":[]}]");
  EXPECT_EQ(Json::parse("[1,{\"a\":2}]", "f").dump(2), "[\n  1,\n  {\n    \"a\": 2\n  }\n]");
  EXPECT_EQ(Json(1.0).dump(), "1.0");  // stays a floating-point number
  EXPECT_EQ(Json(1e22).dump(), "1e+22");
}

TEST(Json, IsBuiltInPlace) {
  Json json;
  json.set("name", "x");
  json.set("list", Json()).push_back(3);
  json.set("name", std::string("y"));
  EXPECT_EQ(json.dump(), R"({"name":"y","list":[3]})");
}

TEST(Json, RefusesWithThePlace) {
  EXPECT_EQ(error_of("{\"a\": 1,\n \"a\": 2}").substr(0, 11), "f.json:2:4:");
  EXPECT_NE(error_of("{\"a\": 1, \"a\": 2}").find("\"a\" occurs twice"), std::string::npos);
  EXPECT_EQ(error_of("[1,\n2,,3]").substr(0, 11), "f.json:2:3:");
  EXPECT_EQ(error_of("{} x").substr(0, 11), "f.json:1:4:");
  EXPECT_NE(error_of("\"\xff\"").find("UTF-8"), std::string::npos);
  EXPECT_NE(error_of("\"\xed\xa0\x80\"").find("UTF-8"), std::string::npos);  // a surrogate
  for (const char* text : {"", "[", "{\"a\"}", "[1,]", "{'a': 1}", "NaN", "01", "tru", "\"a", "\"\x01\"", "// c\n1", "1e999", "\"\\ud800\""}) {
    EXPECT_EQ(error_of(text).substr(0, 7), "f.json:") << text;
  }
}

TEST(Json, RefusesDuplicatesInLargeObjects) {
  std::string text = "{";
  for (int i = 0; i < 1000; i++) text += fmt::format("\"k{}\": {}, ", i, i);
  EXPECT_EQ(Json::parse(text + "\"end\": 0}", "f").object().size(), 1001u);
  EXPECT_NE(error_of(text + "\"k3\": 0}").find("\"k3\" occurs twice"), std::string::npos);
  EXPECT_NE(error_of(text + "\"k999\": 0}").find("\"k999\" occurs twice"), std::string::npos);
}

TEST(Json, RefusesWhatIsNestedTooDeep) {
  EXPECT_EQ(error_of(std::string(512, '[') + std::string(512, ']')), "");
  EXPECT_NE(error_of(std::string(513, '[') + std::string(513, ']')).find("512 levels"), std::string::npos);
  EXPECT_NE(error_of(std::string(1000000, '[')).find("512 levels"), std::string::npos);
}

TEST(JsonView, NamesFileAndField) {
  const Json json = Json::parse(R"({"rope": {"factor": null, "list": [1, "x"]}, "n": 1.5})", "f");
  const JsonView view(json, "config.json");
  EXPECT_EQ(view["rope"]["list"][0].integer(), 1);
  EXPECT_EQ(user_error_of([&] { view["rope"]["factor"].number(); }), "config.json: rope.factor: expected a number, found null");
  EXPECT_EQ(user_error_of([&] { view["rope"]["list"][1].integer(); }), "config.json: rope.list[1]: expected an integer, found the string \"x\"");
  EXPECT_EQ(user_error_of([&] { view["n"].integer(); }), "config.json: n: expected an integer, found the number 1.5");
  EXPECT_EQ(user_error_of([&] { view["m"]; }), "config.json: has no \"m\"");
  EXPECT_EQ(user_error_of([&] { view["rope"]["x"]; }), "config.json: rope: has no \"x\"");
  EXPECT_EQ(user_error_of([&] { view["n"]["x"]; }), "config.json: n: expected an object, found the number 1.5");
  EXPECT_EQ(user_error_of([&] { view["rope"]["list"][2]; }), "config.json: rope.list: has 2 elements, element 2 was asked for");
}

}  // namespace
}  // namespace af
