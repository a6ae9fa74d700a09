#include "data/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/error.h"
#include "data/file.h"

namespace af {
namespace {

constexpr std::size_t kMaxDepth = 512;      // destroying a value recurses
constexpr std::size_t kMembersToScan = 16;  // above it a hash set looks for duplicate keys

// Reads the text and leaves in *now how far the lexer is: the handler's own errors have a place too.
struct Cursor {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;
  const char* at;
  const char** now;
  const char& operator*() const { return *at; }
  Cursor& operator++() {
    *now = ++at;
    return *this;
  }
  bool operator==(const Cursor& other) const { return at == other.at; }
  bool operator!=(const Cursor& other) const { return at != other.at; }
};

// Builds the value from nlohmann's events. The containers being filled are on a stack; a parent does not grow while
// its last child is being filled, so the pointers hold.
class Builder {
 public:
  bool null() { return add(Json()); }
  bool boolean(bool value) { return add(Json(value)); }
  bool number_integer(std::int64_t value) { return add(Json(value)); }
  bool number_unsigned(std::uint64_t value) { return value <= INT64_MAX ? add(Json(static_cast<std::int64_t>(value))) : add(Json(double(value))); }
  bool number_float(double value, const std::string&) { return add(Json(value)); }
  bool string(std::string& value) { return add(Json(std::move(value))); }
  bool binary(nlohmann::json::binary_t&) { return false; }
  bool start_object(std::size_t) { return open(Json(Json::Object())); }
  bool start_array(std::size_t) { return open(Json(Json::Array())); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& name) {
    Level& level = stack_.back();
    if (is_duplicate(level, name)) {
      error = fmt::format("the key \"{}\" occurs twice in one object", name);
      return false;
    }
    level.object->emplace_back().first = std::move(name);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& e) {
    // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error ... - invalid literal; last read: 'x'"
    error = e.what();
    if (std::size_t begin = error.find("] "); begin != std::string::npos) error.erase(0, begin + 2);
    if (std::size_t begin = error.find(", column "); begin != std::string::npos)
      if (begin = error.find(": ", begin); begin != std::string::npos) error.erase(0, begin + 2);
    return false;
  }

  Json root;
  std::string error;

 private:
  struct Level {
    Json::Object* object;  // one of the two
    Json::Array* array;
    std::unordered_set<std::string> keys;  // filled only beyond kMembersToScan
  };

  static bool is_duplicate(Level& level, const std::string& name) {
    const Json::Object& members = *level.object;
    if (members.size() < kMembersToScan) {
      return std::any_of(members.begin(), members.end(), [&](const Json::Member& m) { return m.first == name; });
    }
    if (level.keys.empty())
      for (const Json::Member& m : members) level.keys.insert(m.first);
    return !level.keys.insert(name).second;
  }
  Json* place(Json&& value) {
    if (stack_.empty()) {
      root = std::move(value);
      return &root;
    }
    Level& level = stack_.back();
    if (level.object) {
      level.object->back().second = std::move(value);
      return &level.object->back().second;
    }
    return &level.array->emplace_back(std::move(value));
  }
  bool add(Json&& value) { return place(std::move(value)) != nullptr; }
  bool open(Json&& value) {
    if (stack_.size() == kMaxDepth) {
      error = fmt::format("nested more than {} levels deep", kMaxDepth);
      return false;
    }
    const Json* placed = place(std::move(value));
    const bool is_object = placed->is_object();
    stack_.push_back(
        {is_object ? const_cast<Json::Object*>(&placed->object()) : nullptr, is_object ? nullptr : const_cast<Json::Array*>(&placed->array()), {}});
    return true;
  }
  bool close() {
    stack_.pop_back();
    return true;
  }
  std::vector<Level> stack_;
};

[[noreturn]] void wrong_type(std::string_view where, const char* expected, const Json& found) {
  user_error("{}{}expected {}, found {}", where, where.empty() ? "" : ": ", expected, found.describe());
}

void write_string(std::string& out, const std::string& text) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += "\\u00";
          out += kHex[c >> 4];
          out += kHex[c & 15];
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

void write_double(std::string& out, double value) {
  AF_CHECK(std::isfinite(value), "JSON has no number for {}", value);
  char digits[32];
  const char* end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  const std::string_view text(digits, end - digits);
  out += text;
  if (text.find_first_of(".e") == text.npos) out += ".0";  // still a floating-point number for whoever reads it
}

}  // namespace

Json::Json(const Json&) = default;
Json::Json(Json&&) noexcept = default;
Json& Json::operator=(const Json&) = default;
Json& Json::operator=(Json&&) noexcept = default;
Json::~Json() = default;
bool Json::operator==(const Json& other) const = default;

bool Json::boolean(std::string_view where) const {
  if (const bool* value = std::get_if<bool>(&value_)) return *value;
  wrong_type(where, "true or false", *this);
}

std::int64_t Json::integer(std::string_view where) const {
  if (const std::int64_t* value = std::get_if<std::int64_t>(&value_)) return *value;
  wrong_type(where, "an integer", *this);
}

double Json::number(std::string_view where) const {
  if (const std::int64_t* value = std::get_if<std::int64_t>(&value_)) return double(*value);
  if (const double* value = std::get_if<double>(&value_)) return *value;
  wrong_type(where, "a number", *this);
}

const std::string& Json::string(std::string_view where) const {
  if (const std::string* value = std::get_if<std::string>(&value_)) return *value;
  wrong_type(where, "a string", *this);
}

const Json::Array& Json::array(std::string_view where) const {
  if (const Array* value = std::get_if<Array>(&value_)) return *value;
  wrong_type(where, "an array", *this);
}

const Json::Object& Json::object(std::string_view where) const {
  if (const Object* value = std::get_if<Object>(&value_)) return *value;
  wrong_type(where, "an object", *this);
}

const Json* Json::find(std::string_view key) const {
  if (const Object* members = std::get_if<Object>(&value_))
    for (const Member& member : *members)
      if (member.first == key) return &member.second;
  return nullptr;
}

Json& Json::set(std::string key, Json value) {
  if (is_null()) value_ = Object();
  Object& members = std::get<Object>(value_);
  for (Member& member : members)
    if (member.first == key) return member.second = std::move(value);
  return members.emplace_back(std::move(key), std::move(value)).second;
}

Json& Json::push_back(Json value) {
  if (is_null()) value_ = Array();
  return std::get<Array>(value_).emplace_back(std::move(value));
}

Json Json::parse(std::string_view text, const std::string& source_name, std::int64_t first_line) {
  Builder builder;
  const char* now = text.data();
  const Cursor begin{text.data(), &now}, end{text.data() + text.size(), &now};
  const bool parsed = nlohmann::json::sax_parse(begin, end, &builder, nlohmann::json::input_format_t::json, true);
  if (parsed) return std::move(builder.root);
  std::size_t read = now - text.data();  // the lexer has read the character that it minds
  if (read > 0) read--;
  const std::string_view before = text.substr(0, read);
  const std::int64_t line = first_line + std::count(before.begin(), before.end(), '\n');
  const std::size_t newline = before.rfind('\n');
  const std::size_t column = newline == before.npos ? read + 1 : read - newline;
  user_error("{}:{}:{}: {}", source_name, line, column, builder.error);
}

Json Json::parse_file(const std::string& path) { return parse(read_file(path), path); }

std::string Json::dump(int indent) const {
  std::string out;
  write(out, indent, 0);
  return out;
}

void Json::write(std::string& out, int indent, int level) const {
  const auto new_line = [&](int depth) {
    if (indent < 0) return;
    out += '\n';
    out.append(std::size_t(indent) * depth, ' ');
  };
  const auto write_all = [&](const auto& items, char open, char close, const auto& write_one) {
    out += open;
    bool first = true;
    for (const auto& item : items) {
      if (!std::exchange(first, false)) out += ',';
      new_line(level + 1);
      write_one(item);
    }
    if (!items.empty()) new_line(level);
    out += close;
  };
  if (is_null()) {
    out += "null";
  } else if (const bool* truth = std::get_if<bool>(&value_)) {
    out += *truth ? "true" : "false";
  } else if (const std::int64_t* whole = std::get_if<std::int64_t>(&value_)) {
    out += fmt::format("{}", *whole);
  } else if (const double* real = std::get_if<double>(&value_)) {
    write_double(out, *real);
  } else if (const std::string* text = std::get_if<std::string>(&value_)) {
    write_string(out, *text);
  } else if (const Array* items = std::get_if<Array>(&value_)) {
    write_all(*items, '[', ']', [&](const Json& item) { item.write(out, indent, level + 1); });
  } else {
    write_all(std::get<Object>(value_), '{', '}', [&](const Member& member) {
      write_string(out, member.first);
      out += indent < 0 ? ":" : ": ";
      member.second.write(out, indent, level + 1);
    });
  }
}

std::string Json::describe() const {
  if (is_array()) return "an array";
  if (is_object()) return "an object";
  std::string text = dump();
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return (is_string() ? "the string " : is_number() ? "the number " : "") + text;
}

JsonView JsonView::operator[](std::string_view key) const {
  value_->object(where());
  const Json* member = value_->find(key);
  if (!member) user_error("{}: has no \"{}\"", where(), key);
  return {*member, source_, path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key)};
}

JsonView JsonView::operator[](std::size_t index) const {
  const Json::Array& items = value_->array(where());
  if (index >= items.size()) user_error("{}: has {} elements, element {} was asked for", where(), items.size(), index);
  return {items[index], source_, fmt::format("{}[{}]", path_, index)};
}

}  // namespace af
