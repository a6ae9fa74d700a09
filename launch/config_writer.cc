#include "launch/config_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace af {
namespace {

// Plain where YAML cannot take it for anything but text, else in double quotes.
std::string quoted(const std::string& text) {
  const auto plain = [](unsigned char c) { return std::isalnum(c) || c >= 0x80 || std::strchr("_-./+@=", c) != nullptr; };
  const bool letter_first = std::isalpha(static_cast<unsigned char>(text[0])) || text[0] == '/' || text[0] == '.' || text[0] == '_';
  const char* words[] = {"null", "true", "false", "auto"};
  const bool word = std::any_of(std::begin(words), std::end(words), [&](const char* w) { return text == w; });
  if (letter_first && !word && std::all_of(text.begin(), text.end(), plain) && text.find_first_of("0123456789") != 1) return text;
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20)
      out += fmt::format("\\x{:02x}", c);
    else
      out += c;
  }
  return out + "\"";
}

// 1.0e-08, not 1e-08: parsers of YAML 1.1 take a number for text where it has an exponent and no point.
std::string number(double value) {
  std::string text = fmt::format("{}", value);
  const std::size_t exponent = text.find('e');
  if (exponent != std::string::npos && text.find('.') == std::string::npos) text.insert(exponent, ".0");
  return text;
}

}  // namespace

void ConfigWriter::put(const std::string& name, const std::string& value) {
  out_ += std::string(2 * open_.size() - (dash_ ? 2 : 0), ' ') + (dash_ ? "- " : "") + name + ": " + value + "\n";
  dash_ = false;
}

void ConfigWriter::real(const char* name, double& value, Limits, Need) { put(name, number(value)); }
void ConfigWriter::integer(const char* name, std::int64_t& value, Limits, Need) { put(name, fmt::format("{}", value)); }
void ConfigWriter::boolean(const char* name, bool& value, Need) { put(name, value ? "true" : "false"); }
void ConfigWriter::text(const char* name, std::string& value, Need) {
  if (!value.empty()) put(name, quoted(value));
}
void ConfigWriter::integers(const char* name, std::vector<std::int64_t>& values) { put(name, fmt::format("[{}]", fmt::join(values, ", "))); }
void ConfigWriter::words(const char* name, std::vector<std::string>& values, const std::vector<std::string>&) {
  put(name, fmt::format("[{}]", fmt::join(values, ", ")));
}
void ConfigWriter::real_or_auto(const char* name, double& value, Limits) { put(name, value == 0 ? "auto" : number(value)); }
void ConfigWriter::integer_or_auto(const char* name, std::int64_t& value, Limits) { put(name, value == 0 ? "auto" : fmt::format("{}", value)); }

void ConfigWriter::begin_section(const char* name, Need) {
  put(name, "");
  out_.replace(out_.size() - 2, 2, "\n");  // no blank after the colon
  open_.push_back({out_.size(), name, false});
}

std::size_t ConfigWriter::begin_list(const char* name, std::size_t size, Need) {
  begin_section(name, Need::optional);
  open_.back().list = true;
  return size;
}

void ConfigWriter::begin_item(std::size_t) {
  dash_ = true;
  open_.push_back({out_.size(), "", false});
}

void ConfigWriter::end_section() {
  const Open& open = open_.back();
  if (open.begin == out_.size() && !open.name.empty()) out_.replace(out_.size() - 1, 1, open.list ? " []\n" : " {}\n");
  open_.pop_back();
}

}  // namespace af
