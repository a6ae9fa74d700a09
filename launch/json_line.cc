#include "launch/json_line.h"

#include <fmt/format.h>

#include <cmath>

namespace af {
namespace {

// Length of the valid UTF-8 sequence at the text's begin; 0: there is none.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  const std::size_t length = lead < 0x80                   ? 1
                             : lead >= 0xc2 && lead < 0xe0 ? 2
                             : lead >= 0xe0 && lead < 0xf0 ? 3
                             : lead >= 0xf0 && lead < 0xf5 ? 4
                                                           : 0;
  if (length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xbf) return 0;
  }
  if (length > 2) {  // overlong forms, surrogates, beyond U+10FFFF
    const unsigned second = byte(1);
    if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) || (lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f))
      return 0;
  }
  return length;
}

void append_string(std::string& out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    const unsigned char c = static_cast<unsigned char>(text[0]);
    std::size_t length = utf8_length(text);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += text[0];
    } else if (c == '\n') {
      out += "\\n";
    } else if (c < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04x}", c);
    } else if (length == 0) {
      out += "\\ufffd";
      length = 1;
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(length);
  }
  out += '"';
}

}  // namespace

void JsonLine::key(std::string_view key) {
  if (!fields_.empty()) fields_ += ", ";
  append_string(fields_, key);
  fields_ += ": ";
}

JsonLine& JsonLine::add(std::string_view name, double value) {
  key(name);
  fields_ += std::isfinite(value) ? fmt::format("{}", value) : "null";
  return *this;
}
JsonLine& JsonLine::add(std::string_view name, std::int64_t value) {
  key(name);
  fields_ += fmt::format("{}", value);
  return *this;
}
JsonLine& JsonLine::add(std::string_view name, bool value) {
  key(name);
  fields_ += value ? "true" : "false";
  return *this;
}
JsonLine& JsonLine::add(std::string_view name, std::string_view value) {
  key(name);
  append_string(fields_, value);
  return *this;
}
JsonLine& JsonLine::add(std::string_view name, const JsonLine& value) {
  key(name);
  fields_ += value.text();
  return *this;
}
JsonLine& JsonLine::add(std::string_view name, std::span<const JsonLine> values) {
  key(name);
  fields_ += '[';
  for (std::size_t i = 0; i < values.size(); ++i) fields_ += (i > 0 ? ", " : "") + values[i].text();
  fields_ += ']';
  return *this;
}

JsonLine& JsonLine::add(std::string_view name, std::span<const double> values) {
  key(name);
  fields_ += fmt::format("[{}]", fmt::join(values, ", "));
  return *this;
}

}  // namespace af
