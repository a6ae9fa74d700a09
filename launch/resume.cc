#include "launch/resume.h"

#include <algorithm>
#include <utility>

#include "launch/config_yaml.h"
#include "launch/yaml_node.h"

namespace af {
namespace {

using Leaves = std::vector<std::pair<std::string, std::string>>;

void collect(const YamlNode& node, const std::string& path, Leaves& out) {
  auto below = [&](const std::string& name) { return path.empty() ? name : path + "." + name; };
  for (const auto& [key, value] : node.entries) collect(value, below(key.text), out);
  for (std::size_t i = 0; i < node.items.size(); ++i) collect(node.items[i], below(std::to_string(i)), out);
  if (node.kind == YamlNode::Kind::scalar || node.kind == YamlNode::Kind::null) out.emplace_back(path, node.text);
}

Leaves leaves(const Config& config) {
  Leaves out;
  collect(parse_yaml(to_yaml(config), "the configuration"), "", out);
  return out;
}

std::string value_of(const Leaves& leaves, const std::string& key) {
  const auto found = std::find_if(leaves.begin(), leaves.end(), [&](const auto& leaf) { return leaf.first == key; });
  return found == leaves.end() ? "" : found->second;
}

std::int64_t per_iteration(const StageConfig& stage, TrainLength::Unit unit) {
  switch (unit) {
    case TrainLength::Unit::tokens: return stage.tokens_per_iteration();
    case TrainLength::Unit::samples: return stage.global_batch_size;
    case TrainLength::Unit::iters: break;
  }
  return 1;
}

}  // namespace

std::vector<ConfigChange> changes(const Config& was, const Config& now) {
  const Leaves before = leaves(was), after = leaves(now);
  std::vector<ConfigChange> out;
  for (const auto& [key, value] : after)
    if (std::string old = value_of(before, key); old != value) out.push_back({key, old, value});
  for (const auto& [key, value] : before)
    if (!value.empty() && std::none_of(after.begin(), after.end(), [&, &k = key](const auto& leaf) { return leaf.first == k; }))
      out.push_back({key, value, ""});
  return out;
}

std::int64_t same_progress(const StageConfig& was, const StageConfig& now, std::int64_t iterations) {
  return iterations * per_iteration(was, now.length.unit) / per_iteration(now, now.length.unit);
}

bool is_longer(const StageConfig& was, const StageConfig& now) {
  const std::int64_t more = now.train_iters() * now.tokens_per_iteration() - was.train_iters() * was.tokens_per_iteration();
  return more >= std::max(was.tokens_per_iteration(), now.tokens_per_iteration()) && same_progress(was, now, was.train_iters()) < now.train_iters();
}

}  // namespace af
