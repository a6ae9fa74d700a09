#include "launch/config_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <tuple>

#include "core/error.h"
#include "launch/megatron_names.h"

namespace af {
namespace {

// Nothing where every number will do.
std::string describe_range(const char* before, Limits range) {
  const std::string low = fmt::format("{}{} {}", before, range.low_open ? "above" : "at least", range.low);
  const std::string high = fmt::format("{} {}", range.high_open ? "below" : "at most", range.high);
  if (range.low == -kUnbounded) return "";
  return range.high == kUnbounded ? low : low + " and " + high;
}

bool inside(Limits range, double value) {
  return (range.low_open ? value > range.low : value >= range.low) && (range.high_open ? value < range.high : value <= range.high);
}

std::string shown(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::null:
      return "empty";
    case YamlNode::Kind::list:
      return "a list";
    case YamlNode::Kind::map:
      return "a section";
    case YamlNode::Kind::scalar:
      break;
  }
  return fmt::format("{}'{}'", node.quoted ? "the text " : "", node.text);
}

// The whole text as a number; strtod's "inf", "nan" and hexadecimal numbers are none here.
bool to_double(const std::string& text, double& value) {
  const char *begin = text.data() + (text.starts_with('+') ? 1 : 0), *end = text.data() + text.size();
  const auto [last, code] = std::from_chars(begin, end, value);
  return code == std::errc() && last == end && begin != end && std::isfinite(value);
}

std::string without_indices(const std::string& path) {
  std::string out;
  for (std::size_t begin = 0; begin < path.size();) {
    const std::size_t end = std::min(path.find('.', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    if (!std::all_of(part.begin(), part.end(), [](unsigned char c) { return std::isdigit(c); })) out += (out.empty() ? "" : ".") + part;
    begin = end + 1;
  }
  return out;
}

}  // namespace

ConfigReader::ConfigReader(std::string file, const YamlNode& root) : file_(std::move(file)) {
  frames_.push_back({&root, root.place.line > 0 ? root.place : YamlNode::Place{1, 1}, "", {}});
}

void ConfigReader::problem(YamlNode::Place place, std::string whole_message) { messages_.push_back({place, std::move(whole_message)}); }

void ConfigReader::finish() {
  end_section();
  for (const Unknown& unknown : unknown_) {
    const std::string path = unknown.section + (unknown.section.empty() ? "" : ".") + unknown.key;
    problem(unknown.place, fmt::format("{}: {}: {}", place_text(file_, unknown.place), path, answer(unknown)));
  }
  if (messages_.empty()) return;
  const auto order = [](const Message& m) { return std::make_tuple(m.place.line == 0, m.place.line, m.place.column); };
  std::stable_sort(messages_.begin(), messages_.end(), [&](const Message& a, const Message& b) { return order(a) < order(b); });
  std::string all;
  for (const Message& m : messages_) all += (all.empty() ? "" : "\n") + m.text;
  throw UserError(all);
}

std::string ConfigReader::answer(const Unknown& unknown) const {
  std::vector<std::string> elsewhere;  // the same key in other sections
  for (const auto& [key, section] : places_of_keys_) {
    const std::string place = section.empty() ? "the top level" : section;
    if (key == unknown.key && std::find(elsewhere.begin(), elsewhere.end(), place) == elsewhere.end()) elsewhere.push_back(place);
  }
  if (!elsewhere.empty()) return fmt::format("no key of this section; it belongs to {}", fmt::join(elsewhere, " or "));
  if (const char* instead = megatron_answer(unknown.key)) return instead;
  const std::string near = nearest(unknown.key, unknown.known);
  if (!near.empty()) return fmt::format("unknown key; did you mean {}?", near);
  return fmt::format("unknown key; this section has {}", fmt::join(unknown.known, ", "));
}

const YamlNode* ConfigReader::look(const char* name) {
  Frame& frame = frames_.back();
  if (std::find(frame.known.begin(), frame.known.end(), name) == frame.known.end()) {
    frame.known.emplace_back(name);
    places_of_keys_.emplace_back(name, without_indices(frame.path));
  }
  const YamlNode* node = frame.node != nullptr ? frame.node->find(name) : nullptr;
  return node != nullptr && node->kind == YamlNode::Kind::null && node->place.line == 0 ? nullptr : node;
}

bool ConfigReader::is_null(const char* name) {
  const YamlNode* node = look(name);
  return node != nullptr && node->kind == YamlNode::Kind::null;
}

bool ConfigReader::is_word(const char* name, const char* word) {
  const YamlNode* node = look(name);
  return node != nullptr && node->kind == YamlNode::Kind::scalar && node->text == word;
}

void ConfigReader::alone(const char* name, const std::string& instead) {
  Frame& frame = frames_.back();
  if (frame.node == nullptr) return;
  for (const auto& [key, value] : frame.node->entries) {
    if (key.text == name || (value.kind == YamlNode::Kind::null && value.place.line == 0)) continue;
    problem(key.place, fmt::format("{}: {}: stands beside {}; {}", place_text(file_, key.place), path_of(key.text.c_str()), name, instead));
    frame.known.push_back(key.text);
  }
}

std::string ConfigReader::path_of(const char* name) const {
  const std::string& section = frames_.back().path;
  if (*name == 0) return section;
  return section.empty() ? name : section + "." + name;
}

std::string ConfigReader::where(const char* name) const {
  const Frame& frame = frames_.back();
  const YamlNode* node = frame.node != nullptr && *name != 0 ? frame.node->find(name) : nullptr;
  return place_text(file_, node != nullptr ? node->place : frame.place);
}

void ConfigReader::error(const char* name, const std::string& message) {
  const Frame& frame = frames_.back();
  const YamlNode* node = frame.node != nullptr && *name != 0 ? frame.node->find(name) : nullptr;
  const YamlNode::Place place = node != nullptr ? node->place : frame.place;
  problem(place, fmt::format("{}: {}{}{}", place_text(file_, place), path_of(name), path_of(name).empty() ? "" : ": ", message));
}

void ConfigReader::missing(const char* name, Need need) {
  if (need == Need::required && frames_.back().node != nullptr) error("", fmt::format("{} is missing", name));
}

void ConfigReader::wrong(const YamlNode& node, const std::string& path, const std::string& expected) {
  problem(node.place, fmt::format("{}: {}: is {}; it must be {}", place_text(file_, node.place), path, shown(node), expected));
}

// The key's value where it is a scalar; what else it is, is an error.
const YamlNode* ConfigReader::scalar(const char* name, Need need, const char* expected) {
  const YamlNode* node = look(name);
  if (node == nullptr) missing(name, need);
  if (node == nullptr || node->kind == YamlNode::Kind::scalar) return node;
  wrong(*node, path_of(name), expected);
  return nullptr;
}

bool ConfigReader::parse_real(const YamlNode& node, const std::string& path, Limits range, double& value, const char* otherwise) {
  double given = 0;
  if (node.kind != YamlNode::Kind::scalar || node.quoted || !to_double(node.text, given) || !inside(range, given)) {
    wrong(node, path, "a number" + describe_range(" ", range) + otherwise);
    return false;
  }
  value = given;
  return true;
}

bool ConfigReader::parse_integer(const YamlNode& node, const std::string& path, Limits range, std::int64_t& value, const char* otherwise) {
  double real = 0;
  std::int64_t given = 0;
  const char *begin = node.text.data(), *end = begin + node.text.size();
  const auto [last, code] = std::from_chars(begin, end, given);
  bool whole = node.kind == YamlNode::Kind::scalar && !node.quoted;
  if (whole && (code != std::errc() || last != end)) {  // 200e9: exact up to 2^53
    whole = to_double(node.text, real) && real == std::floor(real) && std::abs(real) <= 9007199254740992.0;
    given = whole ? std::int64_t(real) : 0;
  }
  if (!whole || !inside(range, double(given))) {
    wrong(node, path, "a whole number" + describe_range(", ", range) + otherwise);
    return false;
  }
  value = given;
  return true;
}

void ConfigReader::real(const char* name, double& value, Limits range, Need need) {
  if (const YamlNode* node = scalar(name, need, "a number")) parse_real(*node, path_of(name), range, value);
}

void ConfigReader::integer(const char* name, std::int64_t& value, Limits range, Need need) {
  if (const YamlNode* node = scalar(name, need, "a whole number")) parse_integer(*node, path_of(name), range, value);
}

void ConfigReader::real_or_auto(const char* name, double& value, Limits range) {
  const YamlNode* node = scalar(name, Need::optional, "a number, or auto");
  if (node != nullptr && node->text == "auto")
    value = 0;
  else if (node != nullptr)
    parse_real(*node, path_of(name), range, value, ", or auto");
}

void ConfigReader::integer_or_auto(const char* name, std::int64_t& value, Limits range) {
  const YamlNode* node = scalar(name, Need::optional, "a whole number, or auto");
  if (node != nullptr && node->text == "auto")
    value = 0;
  else if (node != nullptr)
    parse_integer(*node, path_of(name), range, value, ", or auto");
}

void ConfigReader::boolean(const char* name, bool& value, Need need) {
  const YamlNode* node = scalar(name, need, "true or false");
  if (node == nullptr) return;
  if (node->quoted || (node->text != "true" && node->text != "false")) return wrong(*node, path_of(name), "true or false");
  value = node->text == "true";
}

void ConfigReader::text(const char* name, std::string& value, Need need) {
  const YamlNode* node = scalar(name, need, "text");
  if (node == nullptr) return;
  if (node->text.empty()) return wrong(*node, path_of(name), "text that is not empty");
  value = node->text;
}

void ConfigReader::integers(const char* name, std::vector<std::int64_t>& values) {
  const YamlNode* node = look(name);
  if (node == nullptr) return;
  if (node->kind != YamlNode::Kind::list) return wrong(*node, path_of(name), "a list of whole numbers, for example [0, 1]");
  values.clear();
  for (std::size_t i = 0; i < node->items.size(); ++i) {
    std::int64_t value = 0;
    parse_integer(node->items[i], fmt::format("{}.{}", path_of(name), i), {}, value);
    values.push_back(value);
  }
}

void ConfigReader::words(const char* name, std::vector<std::string>& values, const std::vector<std::string>& choices) {
  const YamlNode* node = look(name);
  if (node == nullptr) return;
  if (node->kind != YamlNode::Kind::list) return wrong(*node, path_of(name), fmt::format("a list of some of {}", fmt::join(choices, ", ")));
  values.clear();
  for (std::size_t i = 0; i < node->items.size(); ++i) {
    const YamlNode& item = node->items[i];
    if (std::find(choices.begin(), choices.end(), item.text) != choices.end())
      values.push_back(item.text);
    else
      wrong(item, fmt::format("{}.{}", path_of(name), i), fmt::format("one of {}", fmt::join(choices, ", ")));
  }
}

void ConfigReader::choose(const char* name, std::size_t& index, const std::vector<std::string>& names) {
  const std::string expected = names.size() == 1 ? names[0] : fmt::format("one of {}", fmt::join(names, ", "));
  const YamlNode* node = scalar(name, Need::optional, expected.c_str());
  if (node == nullptr) return;
  const auto found = std::find(names.begin(), names.end(), node->text);
  if (found != names.end()) {
    index = std::size_t(found - names.begin());
    return;
  }
  const std::string near = nearest(node->text, names);
  wrong(*node, path_of(name), expected + (near.empty() || names.size() == 1 ? "" : "; did you mean " + near + "?"));
}

void ConfigReader::begin_section(const char* name, Need need) {
  const YamlNode* node = look(name);
  if (node == nullptr) missing(name, need);
  if (node != nullptr && node->kind == YamlNode::Kind::null) node = &nothing_;  // "moe:" with nothing below it
  if (node != nullptr && node != &nothing_ && node->kind != YamlNode::Kind::map) {
    wrong(*node, path_of(name), "a section of `key: value` lines");
    node = nullptr;
  }
  const YamlNode* at = frames_.back().node != nullptr ? frames_.back().node->find(name) : nullptr;
  frames_.push_back({node, at != nullptr ? at->place : frames_.back().place, path_of(name), {}});
}

std::size_t ConfigReader::begin_list(const char* name, std::size_t, Need need) {
  const YamlNode* node = look(name);
  if (node == nullptr) missing(name, need);
  if (node != nullptr && (node->kind != YamlNode::Kind::list || (node->items.empty() && need == Need::required))) {
    wrong(*node, path_of(name), node->kind == YamlNode::Kind::list ? "a list of at least one" : "a list: entries that begin with `- `");
    node = nullptr;
  }
  frames_.push_back({node, node != nullptr ? node->place : frames_.back().place, path_of(name), {}});
  return node != nullptr ? node->items.size() : 0;
}

void ConfigReader::begin_item(std::size_t index) {
  const YamlNode* node = &frames_.back().node->items[index];
  const std::string path = fmt::format("{}.{}", frames_.back().path, index);
  const YamlNode::Place place = node->place;
  if (node->kind != YamlNode::Kind::map) {
    wrong(*node, path, "a section of `key: value` lines");
    node = nullptr;
  }
  frames_.push_back({node, place, path, {}});
}

void ConfigReader::end_section() {
  const Frame& frame = frames_.back();
  if (frame.node != nullptr) {
    for (const auto& [key, value] : frame.node->entries) {
      const bool known = std::find(frame.known.begin(), frame.known.end(), key.text) != frame.known.end();
      if (!known) unknown_.push_back({key.place, frame.path, key.text, frame.known});
    }
  }
  frames_.pop_back();
}

}  // namespace af
