#include "launch/config_yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <map>
#include <sstream>

#include "core/error.h"
#include "launch/config_reader.h"
#include "launch/config_schema.h"
#include "launch/config_writer.h"
#include "launch/yaml_node.h"

namespace af {
namespace {

// Builds the tree from yaml-cpp's events: unlike its Node these tell the place of everything, and show keys given twice.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const std::string& name) : name_(name) {}
  YamlNode root;

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { add(node(YamlNode::Kind::null, mark), anchor); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    auto known = anchors_.find(anchor);
    if (known == anchors_.end()) fail(place(mark), "an alias within the value that it names");
    if ((copied_ += size_of(known->second)) > 100000) fail(place(mark), "aliases of aliases: more than 100000 values");
    YamlNode copy = known->second;
    add(std::move(copy), 0);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& value) override {
    constexpr std::size_t kMostCharacters = 8192;  // twice the longest path; what is printed stays as readable as what was read
    if (value.size() > kMostCharacters) fail(place(mark), fmt::format("a value of {} bytes; it has at most {}", value.size(), kMostCharacters));
    YamlNode scalar = node(YamlNode::Kind::scalar, mark);
    scalar.text = value;
    scalar.quoted = tag == "!";
    if (!scalar.quoted && (value == "null" || value == "~" || value.empty())) scalar.kind = YamlNode::Kind::null;
    add(std::move(scalar), anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    open_.push_back({node(YamlNode::Kind::list, mark), anchor});
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    open_.push_back({node(YamlNode::Kind::map, mark), anchor});
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    YamlNode node;
    YAML::anchor_t anchor;
    bool have_key = false;
    YamlNode key = {};
  };

  static std::size_t size_of(const YamlNode& node) {
    std::size_t n = 1;
    for (const YamlNode& item : node.items) n += size_of(item);
    for (const auto& [key, value] : node.entries) n += size_of(value);
    return n;
  }
  static YamlNode::Place place(const YAML::Mark& mark) { return {mark.line + 1, mark.column + 1}; }
  static YamlNode node(YamlNode::Kind kind, const YAML::Mark& mark) {
    YamlNode n;
    n.kind = kind;
    n.place = place(mark);
    return n;
  }
  [[noreturn]] void fail(YamlNode::Place where, const std::string& message) { user_error("{}: {}", place_text(name_, where), message); }

  void add(YamlNode value, YAML::anchor_t anchor) {
    if (anchor != 0) anchors_[anchor] = value;
    if (open_.empty()) {
      root = std::move(value);
      return;
    }
    Open& parent = open_.back();
    if (parent.node.kind == YamlNode::Kind::list) {
      parent.node.items.push_back(std::move(value));
    } else if (!parent.have_key) {
      if (value.kind == YamlNode::Kind::list || value.kind == YamlNode::Kind::map) fail(value.place, "a key must be a word");
      if (const YamlNode* first = parent.node.find(value.text)) {
        fail(value.place, fmt::format("'{}' is given twice, first at line {}", value.text, first->place.line));
      }
      parent.key = std::move(value);
      parent.have_key = true;
    } else {
      if (value.kind == YamlNode::Kind::null) value.place = parent.key.place;  // the parser gives the next line's
      parent.node.entries.emplace_back(std::move(parent.key), std::move(value));
      parent.have_key = false;
    }
  }
  void close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    add(std::move(done.node), done.anchor);
  }

  const std::string& name_;
  std::vector<Open> open_;
  std::size_t copied_ = 0;  // values that aliases have brought
  std::map<YAML::anchor_t, YamlNode> anchors_;
};

void set_place(YamlNode& node, YamlNode::Place place) {
  node.place = place;
  for (YamlNode& item : node.items) set_place(item, place);
  for (auto& [key, value] : node.entries) key.place = place, set_place(value, place);
}

}  // namespace

const YamlNode* YamlNode::find(const std::string& key) const { return const_cast<YamlNode*>(this)->find(key); }

YamlNode* YamlNode::find(const std::string& key) {
  for (auto& [name, value] : entries) {
    if (name.text == key) return &value;
  }
  return nullptr;
}

std::string place_text(const std::string& file, YamlNode::Place place) {
  return place.line == 0 ? "command line" : fmt::format("{}:{}:{}", file, place.line, place.column);
}

namespace {

// What is no configuration, but costs yaml-cpp time that grows with the square of it. Brackets in comments and quotes count too:
// nobody has a thousand of them open.
void check_size(const std::string& text, const std::string& name) {
  constexpr std::size_t kMostBytes = 1 << 20;
  constexpr int kMostOpen = 1000;
  if (text.size() > kMostBytes) user_error("{}: has {} bytes; a configuration has at most {}", name, text.size(), kMostBytes);
  int open = 0, line = 1;
  for (const char c : text) {
    open += (c == '[' || c == '{') - (c == ']' || c == '}');
    line += c == '\n';
    if (open > kMostOpen) user_error("{}:{}: more than {} brackets are open", name, line, kMostOpen);
  }
}

}  // namespace

YamlNode parse_yaml(const std::string& text, const std::string& name) {
  check_size(text, name);
  TreeBuilder builder(name);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder)) return {};
    TreeBuilder second(name);
    if (parser.HandleNextDocument(second))
      user_error("{}: a second document begins; one file is one configuration", place_text(name, second.root.place));
  } catch (const YAML::Exception& e) {
    user_error("{}: not YAML: {}", place_text(name, {e.mark.line + 1, e.mark.column + 1}), e.msg);
  }
  return std::move(builder.root);
}

std::string apply_override(YamlNode& root, const std::string& override_text) {
  const std::size_t equals = override_text.find('=');
  if (equals == std::string::npos || equals == 0)
    return fmt::format("'{}' is no override; write key.path=value, for example stages.0.lr.lr=1e-4", override_text);
  YamlNode value;
  try {
    value = parse_yaml(override_text.substr(equals + 1), "value");
  } catch (const UserError& e) {
    return fmt::format("{}: {}", override_text, e.what());
  }
  set_place(value, {});

  YamlNode* at = &root;
  std::string path = override_text.substr(0, equals), done;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('.', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    if (part.empty()) return fmt::format("{}: the path has an empty part", override_text);
    if (at->kind == YamlNode::Kind::list) {
      std::size_t index = 0;
      const auto [last, code] = std::from_chars(part.data(), part.data() + part.size(), index);
      if (code != std::errc() || last != part.data() + part.size() || index >= at->items.size()) {
        return fmt::format("{}: {} is a list of {}, so an index below that must follow, not '{}'", override_text, done, at->items.size(), part);
      }
      at = &at->items[index];
    } else {
      if (at->kind == YamlNode::Kind::scalar) return fmt::format("{}: {} is a value, it has nothing below it", override_text, done);
      at->kind = YamlNode::Kind::map;
      YamlNode* child = at->find(part);
      if (child == nullptr) {
        YamlNode key;
        key.kind = YamlNode::Kind::scalar;
        key.text = part;
        at->entries.emplace_back(std::move(key), YamlNode{});
        child = &at->entries.back().second;
      }
      at = child;
    }
    done += (done.empty() ? "" : ".") + part;
    begin = end + 1;
  }
  *at = std::move(value);
  return "";
}

Config parse_config(const std::string& text, const std::string& name, const std::vector<std::string>& overrides) {
  YamlNode root = parse_yaml(text, name);
  if (root.kind == YamlNode::Kind::null) root.kind = YamlNode::Kind::map;
  ConfigReader reader(name, root);
  if (root.kind != YamlNode::Kind::map) user_error("{}: a configuration is sections of `key: value` lines", place_text(name, root.place));
  for (const std::string& override_text : overrides) {
    if (std::string problem = apply_override(root, override_text); !problem.empty()) reader.problem({}, "command line: " + problem);
  }
  Config config;
  describe(reader, config);
  reader.finish();
  return config;
}

Config read_config(const std::string& path, const std::vector<std::string>& overrides) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) user_error("{}: cannot be read, or is empty", path);
  return parse_config(text.str(), path, overrides);
}

std::string to_yaml(const Config& config) {
  ConfigWriter writer;
  Config copy = config;  // one description serves reading and printing
  describe(writer, copy);
  return writer.text();
}

}  // namespace af
