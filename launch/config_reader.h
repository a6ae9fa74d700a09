// Fills the configuration from a YAML tree and collects everything that is wrong.
#pragma once
#include "launch/config_fields.h"
#include "launch/yaml_node.h"

namespace af {

class ConfigReader : public Fields {
 public:
  ConfigReader(std::string file, const YamlNode& root);
  void problem(YamlNode::Place place, std::string whole_message);
  // Throws one UserError with all messages in the order of the file, the command line's last.
  void finish();

  using Fields::integer, Fields::real;
  bool reading() const override { return true; }
  void real(const char* name, double& value, Limits range, Need need) override;
  void integer(const char* name, std::int64_t& value, Limits range, Need need) override;
  void boolean(const char* name, bool& value, Need need) override;
  void text(const char* name, std::string& value, Need need) override;
  void integers(const char* name, std::vector<std::int64_t>& values) override;
  void words(const char* name, std::vector<std::string>& values, const std::vector<std::string>& choices) override;
  void real_or_auto(const char* name, double& value, Limits range) override;
  void integer_or_auto(const char* name, std::int64_t& value, Limits range) override;
  void null(const char* name) override { look(name); }
  void word(const char* name, const char*) override { look(name); }
  bool has(const char* name) override { return look(name) != nullptr; }
  bool is_null(const char* name) override;
  bool is_word(const char* name, const char* word) override;
  void alone(const char* name, const std::string& instead) override;
  std::size_t errors() const override { return messages_.size(); }
  std::string where(const char* name) const override;
  void error(const char* name, const std::string& message) override;

 protected:
  void choose(const char* name, std::size_t& index, const std::vector<std::string>& names) override;
  void begin_section(const char* name, Need need) override;
  std::size_t begin_list(const char* name, std::size_t size, Need need) override;
  void begin_item(std::size_t index) override;
  void end_section() override;

 private:
  struct Frame {
    const YamlNode* node;  // nullptr: not given
    YamlNode::Place place;
    std::string path;                // "stages.0.lr"
    std::vector<std::string> known;  // keys that the description has
  };
  struct Message {
    YamlNode::Place place;
    std::string text;
  };
  struct Unknown {  // answered at the end, when every key of every section is known
    YamlNode::Place place;
    std::string section, key;
    std::vector<std::string> known;
  };

  const YamlNode* look(const char* name);  // nullptr where not given, or taken out on the command line
  const YamlNode* scalar(const char* name, Need need, const char* expected);
  void missing(const char* name, Need need);
  void wrong(const YamlNode& node, const std::string& path, const std::string& expected);
  bool parse_real(const YamlNode& node, const std::string& path, Limits range, double& value, const char* otherwise = "");
  bool parse_integer(const YamlNode& node, const std::string& path, Limits range, std::int64_t& value, const char* otherwise = "");
  std::string path_of(const char* name) const;
  std::string answer(const Unknown& unknown) const;

  std::string file_;
  YamlNode nothing_;
  std::vector<Frame> frames_;
  std::vector<Message> messages_;
  std::vector<Unknown> unknown_;
  std::vector<std::pair<std::string, std::string>> places_of_keys_;  // (key, section without list indices), of the whole description
};

}  // namespace af
