// JSON values: parsed strictly (duplicate keys, invalid UTF-8 and trailing text are refused), integers kept exactly,
// members in the order of the text.
#pragma once
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace af {

class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;

  Json() = default;   // null
  Json(const Json&);  // these stand in json.cc: inlined, they make g++ 12 warn of members that are never read
  Json(Json&&) noexcept;
  Json& operator=(const Json&);
  Json& operator=(Json&&) noexcept;
  ~Json();
  Json(std::nullptr_t) {}
  Json(std::same_as<bool> auto value) : value_(value) {}
  Json(std::integral auto value) requires(!std::same_as<decltype(value), bool>) : value_(static_cast<std::int64_t>(value)) {}
  Json(double value) : value_(value) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(Array value) : value_(std::move(value)) {}
  Json(Object value) : value_(std::move(value)) {}

  bool is_null() const { return holds<std::monostate>(); }
  bool is_boolean() const { return holds<bool>(); }
  bool is_integer() const { return holds<std::int64_t>(); }  // written without fraction or exponent, and fits int64
  bool is_number() const { return holds<std::int64_t>() || holds<double>(); }
  bool is_string() const { return holds<std::string>(); }
  bool is_array() const { return holds<Array>(); }
  bool is_object() const { return holds<Object>(); }

  // Another type throws UserError "WHERE: expected an integer, found the string "x"".
  bool boolean(std::string_view where = {}) const;
  std::int64_t integer(std::string_view where = {}) const;
  double number(std::string_view where = {}) const;
  const std::string& string(std::string_view where = {}) const;
  const Array& array(std::string_view where = {}) const;
  const Object& object(std::string_view where = {}) const;

  // The member of an object; nullptr where there is none, or where this is no object. One look along the members.
  const Json* find(std::string_view key) const;
  // Sets or appends a member (null becomes an object) or an element (null becomes an array).
  Json& set(std::string key, Json value);
  Json& push_back(Json value);

  bool operator==(const Json& other) const;  // members in the same order; 1 and 1.0 differ

  // source_name and first_line serve the message of the UserError: "traj.jsonl:17:5: invalid literal". At most 512 levels deep.
  static Json parse(std::string_view text, const std::string& source_name, std::int64_t first_line = 1);
  static Json parse_file(const std::string& path);
  // indent < 0: one line without spaces; else pretty, as Python's json.dumps(indent=...). Numbers are the shortest that read back the same.
  std::string dump(int indent = -1) const;
  std::string describe() const;  // for messages: "the string "x"", "the number 3", "an object"

 private:
  template <class T>
  bool holds() const {
    return std::holds_alternative<T>(value_);
  }
  void write(std::string& out, int indent, int level) const;

  std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object> value_;
};

// A value with the path to it, so that the message of a wrong type or a missing member names file and field:
//   JsonView config(json, "qwen/config.json");
//   config["rope_scaling"]["factor"].number()     "qwen/config.json: rope_scaling.factor: expected a number, found null"
// It refers to the Json, which must outlive it.
class JsonView {
 public:
  JsonView(const Json& value, std::string source) : value_(&value), source_(std::move(source)) {}
  JsonView operator[](std::string_view key) const;  // UserError where there is no such member
  JsonView operator[](std::size_t index) const;     // likewise
  bool has(std::string_view key) const { return value_->find(key) != nullptr; }
  std::size_t size() const { return value_->array(where()).size(); }

  bool boolean() const { return value_->boolean(where()); }
  std::int64_t integer() const { return value_->integer(where()); }
  double number() const { return value_->number(where()); }
  const std::string& string() const { return value_->string(where()); }
  const Json::Array& array() const { return value_->array(where()); }
  const Json::Object& object() const { return value_->object(where()); }
  const Json& value() const { return *value_; }
  std::string where() const { return path_.empty() ? source_ : source_ + ": " + path_; }

 private:
  JsonView(const Json& value, std::string source, std::string path) : value_(&value), source_(std::move(source)), path_(std::move(path)) {}
  const Json* value_;
  std::string source_, path_;
};

}  // namespace af
