// Prints a configuration as YAML, every key in force.
#pragma once
#include "launch/config_fields.h"

namespace af {

class ConfigWriter : public Fields {
 public:
  const std::string& text() const { return out_; }

  using Fields::integer, Fields::real;
  bool reading() const override { return false; }
  void real(const char* name, double& value, Limits, Need) override;
  void integer(const char* name, std::int64_t& value, Limits, Need) override;
  void boolean(const char* name, bool& value, Need) override;
  void text(const char* name, std::string& value, Need) override;
  void integers(const char* name, std::vector<std::int64_t>& values) override;
  void words(const char* name, std::vector<std::string>& values, const std::vector<std::string>& choices) override;
  void real_or_auto(const char* name, double& value, Limits) override;
  void integer_or_auto(const char* name, std::int64_t& value, Limits) override;
  void null(const char* name) override { put(name, "null"); }
  void word(const char* name, const char* word) override { put(name, word); }
  bool has(const char*) override { return false; }
  bool is_null(const char*) override { return false; }
  bool is_word(const char*, const char*) override { return false; }
  void alone(const char*, const std::string&) override {}
  std::size_t errors() const override { return 0; }
  std::string where(const char*) const override { return ""; }
  void error(const char*, const std::string&) override {}

 protected:
  void choose(const char* name, std::size_t& index, const std::vector<std::string>& names) override { put(name, names[index]); }
  void begin_section(const char* name, Need) override;
  std::size_t begin_list(const char* name, std::size_t size, Need) override;
  void begin_item(std::size_t index) override;
  void end_section() override;

 private:
  void put(const std::string& name, const std::string& value);

  struct Open {
    std::size_t begin;  // of its own text in out_
    std::string name;   // "" for an item
    bool list;
  };
  std::string out_;
  std::vector<Open> open_;
  bool dash_ = false;  // the next line begins an item
};

}  // namespace af
