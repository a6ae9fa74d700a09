// A YAML document as a tree that remembers where each value stood.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace af {

struct YamlNode {
  enum class Kind { null, scalar, list, map };
  struct Place {
    int line = 0, column = 0;  // from 1; line 0: the command line
  };
  using Entry = std::pair<YamlNode, YamlNode>;  // key (a scalar) and value

  Kind kind = Kind::null;
  Place place;
  std::string text;             // scalar
  bool quoted = false;          // scalar: in quotes, so text whatever it looks like
  std::vector<YamlNode> items;  // list
  std::vector<Entry> entries;   // map, in the order of the text

  // The value of a map's key; nullptr where there is none.
  const YamlNode* find(const std::string& key) const;
  YamlNode* find(const std::string& key);
};

// "run.yaml:12:7" or "command line".
std::string place_text(const std::string& file, YamlNode::Place place);

// What is not YAML is one UserError "name:line:column: message"; so are keys given twice.
YamlNode parse_yaml(const std::string& text, const std::string& name);
// Applies "stages.0.lr.lr=1e-4": the value is YAML, sections on the way are made where missing, list entries must be
// there. Returns what is wrong with it, "" where nothing is.
std::string apply_override(YamlNode& root, const std::string& override_text);

}  // namespace af
