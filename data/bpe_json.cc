#include "data/bpe_json.h"

#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "data/file.h"
#include "data/json.h"

namespace af {
namespace {

bool is_absent(const JsonView& json, std::string_view key) { return !json.has(key) || json[key].value().is_null(); }

// Refuses a value other than the one that this program computes with; an absent one is the default.
void expect(const JsonView& json, std::string_view key, const std::vector<Json>& allowed) {
  if (is_absent(json, key)) return;
  const Json& value = json[key].value();
  if (std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
    user_error("{}: is {}; this program computes with {} only", json[key].where(), value.describe(), allowed[0].dump());
  }
}

void check_type(const JsonView& json, std::string_view type) {
  const Json* found = json.value().find("type");
  if (!found || *found != Json(type)) {
    user_error("{}: is {}; this program computes '{}' only", json.where(), found ? found->describe() : json.value().describe(), type);
  }
}

void check_added_token(const JsonView& token) {
  for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized"}) expect(token, flag, {false});
}

void check_pre_tokenizer(const JsonView& json) {
  check_type(json, "Sequence");
  const JsonView steps = json["pretokenizers"];
  if (steps.size() != 2) user_error("{}: expected two steps, Split by Qwen's pattern and ByteLevel; found {}", steps.where(), steps.size());
  check_type(steps[0], "Split");
  const std::string pattern = steps[0]["pattern"]["Regex"].string();
  if (pattern != kQwenSplitPattern) user_error("{}: this program splits by Qwen's pattern only, {}", steps[0].where(), kQwenSplitPattern);
  expect(steps[0], "behavior", {"Isolated"});
  expect(steps[0], "invert", {false});
  check_type(steps[1], "ByteLevel");
  for (const char* flag : {"add_prefix_space", "use_regex"}) {
    if (steps[1][flag].boolean()) user_error("{}: is true; this program computes with false only", steps[1][flag].where());
  }
}

Json added_token(const SpecialToken& token) {
  Json json;
  json.set("content", token.text);
  for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized"}) json.set(flag, false);
  json.set("special", token.control);
  return json;
}

Json byte_level() {
  Json json;
  json.set("type", "ByteLevel");
  for (const char* flag : {"add_prefix_space", "trim_offsets", "use_regex"}) json.set(flag, false);
  return json;
}

}  // namespace

void read_tokenizer_json(const std::string& path, BpeBuilder& builder) {
  const Json json = Json::parse_file(path);
  const JsonView file(json, path);
  expect(file, "truncation", {nullptr});
  expect(file, "padding", {nullptr});
  check_type(file["normalizer"], "NFC");
  check_pre_tokenizer(file["pre_tokenizer"]);
  if (!is_absent(file, "post_processor")) check_type(file["post_processor"], "ByteLevel");
  const JsonView model = file["model"];
  check_type(model, "BPE");
  for (const char* key : {"dropout", "unk_token"}) expect(model, key, {nullptr});
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) expect(model, key, {""});
  for (const char* key : {"byte_fallback", "ignore_merges"}) expect(model, key, {false});

  if (!is_absent(file, "added_tokens")) {
    const JsonView added = file["added_tokens"];
    for (std::size_t i = 0; i < added.size(); ++i) {
      check_added_token(added[i]);
      builder.add_special(added[i]["id"].integer(), added[i]["content"].string(), added[i]["special"].boolean(), added[i].where());
    }
  }
  builder.add_tokens(model["vocab"]);
  const std::string where = model["merges"].where();
  for (const Json& merge : model["merges"].array()) {  // "a b", or ["a", "b"] since tokenizers 0.20
    if (merge.is_array() && merge.array().size() == 2) {
      builder.add_merge(merge.array()[0].string(where), merge.array()[1].string(where), where);
      continue;
    }
    const std::string& text = merge.string(where);
    const std::size_t space = text.find(' ');
    if (space == std::string::npos) user_error("{}: '{}' is no merge; expected two tokens", where, text);
    builder.add_merge(std::string_view(text).substr(0, space), std::string_view(text).substr(space + 1), where);
  }
}

void read_tokenizer_config(const std::string& path, BpeBuilder& builder) {
  const Json json = Json::parse_file(path);
  const JsonView config(json, path);
  if (is_absent(config, "added_tokens_decoder")) return;
  const JsonView tokens = config["added_tokens_decoder"];
  for (const auto& [key, value] : tokens.object()) {
    const JsonView token = tokens[key];
    std::int64_t id = -1;
    auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size()) user_error("{}: '{}' is no token id", tokens.where(), key);
    check_added_token(token);
    builder.add_special(id, token["content"].string(), !is_absent(token, "special") && token["special"].boolean(), token.where());
  }
}

void write_tokenizer_json(const BpeVocabulary& vocabulary, const std::string& folder) {
  const ByteAlphabet alphabet;
  Json split, pre_tokenizer, model, file, config;
  split.set("type", "Split");
  split.set("pattern", nullptr).set("Regex", kQwenSplitPattern);
  split.set("behavior", "Isolated");
  split.set("invert", false);
  pre_tokenizer.set("type", "Sequence");
  Json& steps = pre_tokenizer.set("pretokenizers", nullptr);
  steps.push_back(std::move(split));
  steps.push_back(byte_level());

  model.set("type", "BPE");
  for (const char* key : {"dropout", "unk_token"}) model.set(key, nullptr);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) model.set(key, "");
  for (const char* key : {"fuse_unk", "byte_fallback", "ignore_merges"}) model.set(key, false);
  Json::Object vocab;
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (!vocabulary.tokens[id].empty()) vocab.emplace_back(alphabet.text_of(vocabulary.tokens[id]), Json(id));
  }
  model.set("vocab", std::move(vocab));
  Json::Array merges;
  for (const BpeMerge& merge : vocabulary.merges) {
    merges.push_back(alphabet.text_of(vocabulary.tokens[merge.left]) + " " + alphabet.text_of(vocabulary.tokens[merge.right]));
  }
  model.set("merges", std::move(merges));

  file.set("version", "1.0");
  for (const char* key : {"truncation", "padding"}) file.set(key, nullptr);
  Json& added = file.set("added_tokens", Json::Array());
  Json& decoder = config.set("added_tokens_decoder", Json::Object());
  for (const SpecialToken& token : vocabulary.specials) {
    const Json description = added_token(token);
    Json with_id;
    with_id.set("id", token.id);
    for (const auto& [key, value] : description.object()) with_id.set(key, value);
    added.push_back(std::move(with_id));
    decoder.set(fmt::format("{}", token.id), description);
  }
  file.set("normalizer", nullptr).set("type", "NFC");
  file.set("pre_tokenizer", std::move(pre_tokenizer));
  file.set("post_processor", byte_level());
  file.set("decoder", byte_level());
  file.set("model", std::move(model));
  write_file(folder + "/tokenizer.json", file.dump(2) + "\n");

  // The class is the fast one alone: it reads tokenizer.json and wants no vocab.json beside it.
  config.set("add_prefix_space", false);
  config.set("clean_up_tokenization_spaces", false);
  config.set("eos_token", "<|endoftext|>");
  config.set("pad_token", "<|endoftext|>");
  config.set("tokenizer_class", "PreTrainedTokenizerFast");
  write_file(folder + "/tokenizer_config.json", config.dump(2) + "\n");
}

}  // namespace af
