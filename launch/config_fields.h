// The configuration's one description (config_schema.h) is walked through this interface: by a reader that fills the structs
// from YAML and collects errors, and by a writer that prints them. So what is read, checked and printed cannot drift apart.
#pragma once
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace af {

struct Limits {
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  bool low_open = false, high_open = false;  // the bound itself is not allowed
};
inline constexpr double kUnbounded = std::numeric_limits<double>::infinity();
inline constexpr Limits kPositive{0, kUnbounded, true, false}, kNotNegative{0, kUnbounded, false, false}, kAtLeastOne{1, kUnbounded, false, false};
inline constexpr Limits kShare{0, 1, false, true};  // [0, 1)

enum class Need { optional, required };

class Fields {
 public:
  virtual ~Fields() = default;
  virtual bool reading() const = 0;

  // A value keeps what it was (the default, or that of the section which a stage overrides) where its key is not given.
  virtual void real(const char* name, double& value, Limits range, Need need = Need::optional) = 0;
  virtual void integer(const char* name, std::int64_t& value, Limits range, Need need = Need::optional) = 0;  // 200e9 is one
  virtual void boolean(const char* name, bool& value, Need need = Need::optional) = 0;
  virtual void text(const char* name, std::string& value, Need need = Need::optional) = 0;  // printed where not empty
  virtual void integers(const char* name, std::vector<std::int64_t>& values) = 0;
  virtual void words(const char* name, std::vector<std::string>& values, const std::vector<std::string>& choices) = 0;
  virtual void real_or_auto(const char* name, double& value, Limits range) = 0;  // the word `auto` is 0
  virtual void integer_or_auto(const char* name, std::int64_t& value, Limits range) = 0;
  void real(const char* name, std::optional<double>& value, Limits range);  // printed where set
  void integer(const char* name, std::optional<std::int64_t>& value, Limits range);
  template <class Enum>
  void choice(const char* name, Enum& value, const std::vector<std::pair<const char*, Enum>>& choices);
  virtual void null(const char* name) = 0;                    // the key is null: printed so, or accepted
  virtual void word(const char* name, const char* word) = 0;  // likewise a word that stands in a section's place

  // A nested section. One that is not given is walked all the same.
  template <class Body>
  void section(const char* name, Body&& body, Need need = Need::optional);
  // A list of sections; each item begins as `fresh`.
  template <class T, class Body>
  void list(const char* name, std::vector<T>& items, const T& fresh, Body&& body, Need need = Need::optional);

  // Of the section being walked, for the reader; the writer has nothing, gives no places and takes no errors.
  virtual bool has(const char* name) = 0;
  virtual bool is_null(const char* name) = 0;  // has() it, and it is null
  virtual bool is_word(const char* name, const char* word) = 0;
  virtual void alone(const char* name, const std::string& instead) = 0;  // every other key of this section is an error
  virtual std::size_t errors() const = 0;                                // so far; checks of several keys wait until each is right
  virtual std::string where(const char* name) const = 0;  // "run.yaml:12:7", of the key's value; of the section where the key is not given
  virtual void error(const char* name, const std::string& message) = 0;  // "where: path of the key: message"

 protected:
  virtual void choose(const char* name, std::size_t& index, const std::vector<std::string>& names) = 0;
  virtual void begin_section(const char* name, Need need) = 0;
  virtual std::size_t begin_list(const char* name, std::size_t size, Need need) = 0;  // items that it has, for the reader
  virtual void begin_item(std::size_t index) = 0;
  virtual void end_section() = 0;
};

inline void Fields::real(const char* name, std::optional<double>& value, Limits range) {
  if (reading() ? !has(name) : !value) return;
  double given = value.value_or(0);
  real(name, given, range);
  value = given;
}

inline void Fields::integer(const char* name, std::optional<std::int64_t>& value, Limits range) {
  if (reading() ? !has(name) : !value) return;
  std::int64_t given = value.value_or(0);
  integer(name, given, range);
  value = given;
}

template <class Enum>
void Fields::choice(const char* name, Enum& value, const std::vector<std::pair<const char*, Enum>>& choices) {
  std::vector<std::string> names;
  std::size_t index = 0;
  for (const auto& [word, meaning] : choices) {
    if (meaning == value) index = names.size();
    names.emplace_back(word);
  }
  choose(name, index, names);
  value = choices[index].second;
}

template <class Body>
void Fields::section(const char* name, Body&& body, Need need) {
  begin_section(name, need);
  body();
  end_section();
}

template <class T, class Body>
void Fields::list(const char* name, std::vector<T>& items, const T& fresh, Body&& body, Need need) {
  const std::size_t size = begin_list(name, items.size(), need);
  if (reading()) items.assign(size, fresh);
  for (std::size_t i = 0; i < items.size(); ++i) {
    begin_item(i);
    body(items[i]);
    end_section();
  }
  end_section();
}

}  // namespace af
