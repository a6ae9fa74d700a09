#include "launch/config_checks.h"

#include <fmt/format.h>

#include <filesystem>
#include <set>

#include "core/error.h"
#include "data/batch_stream.h"
#include "data/hdf5_file.h"
#include "data/segments.h"
#include "data/token_dataset.h"
#include "data/tokenizer.h"
#include "launch/dataset_check.h"

namespace af {

Config of_stage(const Config& config, const std::string& name) {
  Config out = config;
  if (name.empty()) return out;
  std::erase_if(out.stages, [&](const StageConfig& stage) { return stage.name != name; });
  if (out.stages.empty()) {
    std::vector<std::string> names;
    for (const StageConfig& stage : config.stages) names.push_back(stage.name);
    user_error("--stage {}: there is no such stage; there are: {}", name, fmt::join(names, ", "));
  }
  if (config.stages.front().name != name) out.init = InitConfig{};
  return out;
}

std::vector<std::string> missing_files(const Config& config) {
  std::vector<std::string> out;
  const auto check = [&](const std::string& where, const std::string& path) {
    std::error_code error;
    if (!std::filesystem::exists(path, error)) out.push_back(fmt::format("{}: there is no {}", where, path));
  };
  if (config.init.from != InitConfig::From::random) check(config.init.where, config.init.path);
  if (!config.tokenizer.path.empty() && config.tokenizer.path != "bytes") check(config.tokenizer.where, config.tokenizer.path);
  for (const StageConfig& stage : config.stages) {
    for (const DataSource& source : stage.data) check(source.where, source.path);
  }
  for (const DataSource& source : config.validation.data) check(source.where, source.path);
  return out;
}

std::vector<std::string> data_problems(const Config& config) {
  std::vector<std::string> out;
  std::set<std::string> seen;
  const std::string tokenizer = config.tokenizer.path.empty() ? "" : make_tokenizer(config.tokenizer.path)->sha256();
  std::string first_path, first_tokenizer;
  const auto check = [&](const DataSource& source, const StageConfig& stage) {
    if (!seen.insert(fmt::format("{} {}", source.path, stage.seq_length)).second) return;
    try {
      if (!H5File::has_checksums(source.path))
        if (std::vector<std::string> damage = problems_in_child(source.path, seconds_to_read(source.path)); !damage.empty()) throw UserError(damage[0]);
      check_vocabulary(source.path, config.model.vocab_size);
      const std::int64_t tokens = H5File::open(source.path).dataset("/tokens").rows();
      if (tokens < stage.seq_length)
        user_error("{}: {} tokens, fewer than one sequence of stage {} (seq_length {})", source.path, tokens, stage.name, stage.seq_length);
      const std::string made_with = read_token_dataset_info(source.path).tokenizer_sha256;
      if (!tokenizer.empty() && made_with != tokenizer)
        user_error("{}: made with another tokenizer than tokenizer.path {} ({})", source.path, config.tokenizer.path, config.tokenizer.where);
      if (first_path.empty()) first_path = source.path, first_tokenizer = made_with;
      if (made_with != first_tokenizer)
        user_error("{}: made with another tokenizer ({:.8}) than {} ({:.8}); a run has one", source.path, made_with, first_path, first_tokenizer);
    } catch (const UserError& error) {
      out.push_back(fmt::format("{}: {}", source.where, error.what()));
    }
  };
  for (const StageConfig& stage : config.stages) {
    for (const DataSource& source : stage.data) {
      const std::size_t before = out.size();
      check(source, stage);
      if (out.size() > before || !stage.loss_roles || stage.loss_roles->has(Role::other) || H5File::open(source.path).has("/role_runs")) continue;
      out.push_back(fmt::format("{}: {}: has no roles, so that none of it would count in stage {} (loss_roles {}); tokenize messages or segments",
                                source.where, source.path, stage.name, names_of(*stage.loss_roles)));
    }
    for (const DataSource& source : config.validation.data) check(source, stage);
  }
  return out;
}

std::vector<std::string> warnings(const Config& config) {
  std::vector<std::string> out;
  for (const StageConfig& stage : config.stages) {
    const auto say = [&](const std::string& message) { out.push_back(fmt::format("stage {}: {}", stage.name, message)); };
    const std::int64_t trained = config.model.max_position_embeddings;
    if (stage.seq_length > trained && !stage.rope.yarn && stage.rope.theta <= config.model.rope.theta) {
      say(fmt::format("seq_length {} is beyond max_position_embeddings {} and RoPE is as before; raise rope_theta or give rope_scaling",
                      stage.seq_length, trained));
    }
    if (stage.rope.yarn && double(stage.seq_length) > stage.rope.yarn->factor * double(stage.rope.yarn->original_max_position_embeddings)) {
      say(fmt::format("seq_length {} is beyond YaRN's factor {} x {}", stage.seq_length, stage.rope.yarn->factor,
                      stage.rope.yarn->original_max_position_embeddings));
    }
    if (stage.lr.lr_decay_iters && *stage.lr.lr_decay_iters > stage.train_iters()) {
      say(fmt::format("lr_decay_iters {} is beyond the stage's {} iterations: min_lr is not reached", *stage.lr.lr_decay_iters, stage.train_iters()));
    }
  }
  return out;
}

}  // namespace af
