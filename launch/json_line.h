// One JSON object, written field by field in the order of the calls: a line of metrics.jsonl.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace af {

// Strings are escaped (and bytes that are not UTF-8 replaced by U+FFFD); numbers that JSON cannot say (NaN, infinities) are null; doubles keep all
// their bits.
class JsonLine {
 public:
  JsonLine& add(std::string_view key, double value);
  JsonLine& add(std::string_view key, std::int64_t value);
  JsonLine& add(std::string_view key, int value) { return add(key, std::int64_t(value)); }
  JsonLine& add(std::string_view key, bool value);
  JsonLine& add(std::string_view key, std::string_view value);
  JsonLine& add(std::string_view key, const char* value) { return add(key, std::string_view(value)); }
  JsonLine& add(std::string_view key, const JsonLine& value);
  JsonLine& add(std::string_view key, std::span<const JsonLine> values);  // an array
  JsonLine& add(std::string_view key, std::span<const double> values);    // likewise
  std::string text() const { return "{" + fields_ + "}"; }

 private:
  void key(std::string_view key);
  std::string fields_;
};

}  // namespace af
