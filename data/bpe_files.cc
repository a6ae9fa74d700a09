#include "data/bpe_files.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <optional>
#include <unordered_map>

#include "core/error.h"
#include "data/file.h"
#include "data/json.h"

namespace af {
namespace {

namespace fs = std::filesystem;
constexpr std::int64_t kMostIds = 1 << 24;

// Hugging Face's files write a token's bytes as characters: printable ones of Latin-1 as themselves, the others, in
// order, as U+0100 and on (a space is U+0120).
class ByteAlphabet {
 public:
  ByteAlphabet() {
    char32_t next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
      characters_[byte] = printable ? char32_t(byte) : next++;
      bytes_[characters_[byte]] = char(byte);
    }
  }
  std::optional<std::string> bytes_of(std::string_view text) const {
    std::string bytes;
    for (std::size_t at = 0; at < text.size();) {
      CodePoint c = first_code_point(text.substr(at));
      auto found = bytes_.find(c.value);
      if (found == bytes_.end()) return std::nullopt;
      bytes += found->second;
      at += c.length;
    }
    return bytes;
  }
  std::string text_of(std::string_view bytes) const {
    std::string text;
    for (char byte : bytes) append_utf8(characters_[static_cast<unsigned char>(byte)], text);
    return text;
  }

 private:
  std::array<char32_t, 256> characters_;
  std::unordered_map<char32_t, char> bytes_;
};

// Gathers a vocabulary from the parts of one or more files; complaints name the file.
class Builder {
 public:
  void add_special(std::int64_t id, std::string text, bool special, const std::string& where) {
    check_id(id, where);
    bool control = special || (text.starts_with("<|") && text.ends_with("|>"));
    SpecialToken token{std::move(text), std::uint32_t(id), control};
    for (const SpecialToken& other : vocabulary.specials) {
      if (other == token) return;  // tokenizer_config.json says it again
      if (other.id == token.id) user_error("{}: the id {} is '{}' here and '{}' elsewhere", where, id, token.text, other.text);
    }
    vocabulary.specials.push_back(std::move(token));
  }

  // After the special tokens, which a vocabulary may list too.
  void add_tokens(const JsonView& json) {
    std::unordered_map<std::string_view, std::uint32_t> special;
    for (const SpecialToken& token : vocabulary.specials) special[token.text] = token.id;
    const std::string where = json.where();
    for (const auto& [text, value] : json.object()) {
      std::int64_t id = value.integer(where);
      check_id(id, where);
      if (auto found = special.find(text); found != special.end() && found->second == id) continue;
      std::optional<std::string> bytes = alphabet_.bytes_of(text);
      if (!bytes || bytes->empty()) user_error("{}: the token '{}' is not written in byte-level characters", where, text);
      add_token(std::uint32_t(id), std::move(*bytes), where);
    }
  }

  void add_token(std::uint32_t id, std::string bytes, const std::string& where) {
    if (id >= vocabulary.tokens.size()) vocabulary.tokens.resize(std::size_t(id) + 1);
    if (!vocabulary.tokens[id].empty()) user_error("{}: two tokens have the id {}", where, id);
    ids_[bytes] = id;
    vocabulary.tokens[id] = std::move(bytes);
  }

  void add_merge(std::string_view left, std::string_view right, const std::string& where) {
    auto id_of = [&](const std::optional<std::string>& bytes, std::string_view text) {
      auto found = bytes ? ids_.find(*bytes) : ids_.end();
      if (found == ids_.end()) user_error("{}: the merge of '{}' and '{}' needs the token '{}', which does not exist", where, left, right, text);
      return found->second;
    };
    std::optional<std::string> a = alphabet_.bytes_of(left), b = alphabet_.bytes_of(right);
    std::uint32_t left_id = id_of(a, left), right_id = id_of(b, right);
    vocabulary.merges.push_back({left_id, right_id, id_of(*a + *b, std::string(left) + std::string(right))});
  }

  BpeVocabulary vocabulary;

 private:
  static void check_id(std::int64_t id, const std::string& where) {
    if (id < 0 || id >= kMostIds) user_error("{}: {} is no token id (0 to {})", where, id, kMostIds - 1);
  }
  ByteAlphabet alphabet_;
  std::unordered_map<std::string, std::uint32_t> ids_;  // of ordinary tokens by their bytes
};

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
  if (json["type"].string() != type) user_error("{}: is '{}'; this program computes '{}' only", json["type"].where(), json["type"].string(), type);
}

void check_added_token(const JsonView& token) {
  for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized"}) expect(token, flag, {false});
}

void add_config_tokens(const std::string& path, Builder& builder) {
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

Builder read_tokenizer_json(const std::string& path) {
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

  Builder builder;
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
  return builder;
}

// f(line number, line) for each line that is not empty.
template <class F>
void for_each_line(std::string_view text, F&& f) {
  for (std::int64_t number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) f(number, line);
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
  }
}

Builder read_vocab_and_merges(const std::string& folder) {
  const std::string config_path = folder + "/tokenizer_config.json", merges_path = folder + "/merges.txt", vocab_path = folder + "/vocab.json";
  if (!fs::exists(config_path)) user_error("{}: is missing; beside vocab.json and merges.txt it names the special tokens", config_path);
  const Json config = Json::parse_file(config_path);
  const std::string kind = JsonView(config, config_path)["tokenizer_class"].string();
  if (kind != "Qwen2Tokenizer" && kind != "Qwen2TokenizerFast") {
    user_error("{}: tokenizer_class is '{}'; this program computes 'Qwen2Tokenizer' (also Qwen3's) only", config_path, kind);
  }
  Builder builder;
  add_config_tokens(config_path, builder);
  const Json vocab = Json::parse_file(vocab_path);
  builder.add_tokens(JsonView(vocab, vocab_path));
  for_each_line(read_file(merges_path), [&](std::int64_t number, std::string_view line) {
    if (number == 1 && line.starts_with("#version")) return;
    const std::size_t space = line.find(' ');
    if (space == line.npos) user_error("{}:{}: '{}' is no merge; expected two tokens", merges_path, number, line);
    builder.add_merge(line.substr(0, space), line.substr(space + 1), fmt::format("{}:{}", merges_path, number));
  });
  return builder;
}

std::optional<std::string> base64_decoded(std::string_view text) {
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string bytes;
  std::uint32_t bits = 0, count = 0;
  for (char c : text) {
    const std::size_t digit = kDigits.find(c);
    if (digit == kDigits.npos) return std::nullopt;
    bits = bits << 6 | std::uint32_t(digit), count += 6;
    if (count >= 8) count -= 8, bytes += char(bits >> count);
  }
  return bytes;
}

// Ranks say which merge comes first, and are the ids. A token's two parts are what the merges before its own make of it.
Builder read_tiktoken(const std::string& path) {
  Builder builder;
  std::vector<std::string>& tokens = builder.vocabulary.tokens;
  for_each_line(read_file(path), [&](std::int64_t number, std::string_view line) {
    const std::size_t space = line.find(' ');
    std::int64_t rank = -1;
    if (space != line.npos) std::from_chars(line.data() + space + 1, line.data() + line.size(), rank);
    std::optional<std::string> bytes = base64_decoded(line.substr(0, space));
    if (!bytes || bytes->empty() || rank != std::int64_t(tokens.size())) {
      user_error("{}:{}: expected 'BASE64 {}' (ranks go up by one), found '{}'", path, number, tokens.size(), line.substr(0, 60));
    }
    builder.add_token(std::uint32_t(rank), std::move(*bytes), path);
  });
  std::array<std::uint32_t, 256> bytes{};
  for (std::uint32_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].size() == 1) bytes[static_cast<unsigned char>(tokens[id][0])] = id;
  }
  BpeMerges merges(bytes, tokens.size());
  BpeMerges::Buffers buffers;
  std::vector<std::uint32_t> parts;
  for (std::uint32_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].size() == 1) continue;
    parts.clear();
    merges.encode(tokens[id], buffers, parts);
    if (parts.size() != 2) user_error("{}: the token of rank {} is made of {} tokens of lower rank, not of two", path, id, parts.size());
    builder.vocabulary.merges.push_back({parts[0], parts[1], id});
    merges.add(builder.vocabulary.merges.back());
  }
  builder.vocabulary.specials = qwen_special_tokens(std::uint32_t(tokens.size()));
  return builder;
}

Builder read_folder(const std::string& folder) {
  auto has = [&](const char* name) { return fs::exists(fs::path(folder) / name); };
  if (has("tokenizer.json")) {
    Builder builder = read_tokenizer_json(folder + "/tokenizer.json");
    if (has("tokenizer_config.json")) add_config_tokens(folder + "/tokenizer_config.json", builder);
    return builder;
  }
  if (has("vocab.json") && has("merges.txt")) return read_vocab_and_merges(folder);
  std::vector<std::string> ranks;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".tiktoken") ranks.push_back(entry.path().string());
  }
  if (ranks.size() == 1) return read_tiktoken(ranks[0]);
  user_error("{}: holds no tokenizer; expected tokenizer.json, vocab.json with merges.txt, or one *.tiktoken (found {})", folder, ranks.size());
}

}  // namespace

BpeVocabulary read_bpe_vocabulary(const std::string& path) {
  if (!fs::exists(path)) user_error("{}: there is no such tokenizer; expected a folder or a file, or the name 'bytes'", path);
  Builder builder = fs::is_directory(path)                      ? read_folder(path)
                    : fs::path(path).extension() == ".tiktoken" ? read_tiktoken(path)
                    : fs::path(path).extension() == ".json"     ? read_tokenizer_json(path)
                                                                : throw UserError(path + ": expected a folder, a tokenizer.json or a .tiktoken file");
  if (std::string problem = problem_of(builder.vocabulary); !problem.empty()) user_error("{}: {}", path, problem);
  return std::move(builder.vocabulary);
}

namespace {

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

void write_bpe_vocabulary(const BpeVocabulary& vocabulary, const std::string& folder) {
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
    Json with_id;
    with_id.set("id", token.id);
    for (const auto& [key, value] : added_token(token).object()) with_id.set(key, value);
    added.push_back(std::move(with_id));
    decoder.set(fmt::format("{}", token.id), added_token(token));
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
