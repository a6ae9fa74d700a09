#include "data/bpe_files.h"

#include <charconv>
#include <filesystem>
#include <optional>

#include "core/error.h"
#include "data/bpe_builder.h"
#include "data/bpe_json.h"
#include "data/file.h"
#include "data/json.h"

namespace af {
namespace {

namespace fs = std::filesystem;

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

void read_vocab_and_merges(const std::string& folder, BpeBuilder& builder) {
  const std::string config_path = folder + "/tokenizer_config.json", merges_path = folder + "/merges.txt", vocab_path = folder + "/vocab.json";
  if (!fs::exists(config_path)) user_error("{}: is missing; beside vocab.json and merges.txt it names the special tokens", config_path);
  const Json config = Json::parse_file(config_path);
  const std::string kind = JsonView(config, config_path)["tokenizer_class"].string();
  if (kind != "Qwen2Tokenizer" && kind != "Qwen2TokenizerFast") {
    user_error("{}: tokenizer_class is '{}'; this program computes 'Qwen2Tokenizer' (also Qwen3's) only", config_path, kind);
  }
  read_tokenizer_config(config_path, builder);
  const Json vocab = Json::parse_file(vocab_path);
  builder.add_tokens(JsonView(vocab, vocab_path));
  for_each_line(read_file(merges_path), [&](std::int64_t number, std::string_view line) {
    if (number == 1 && line.starts_with("#version")) return;
    const std::size_t space = line.find(' ');
    if (space == line.npos) user_error("{}:{}: '{}' is no merge; expected two tokens", merges_path, number, line);
    builder.add_merge(line.substr(0, space), line.substr(space + 1), fmt::format("{}:{}", merges_path, number));
  });
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
void read_tiktoken(const std::string& path, BpeVocabulary& vocabulary) {
  std::vector<std::string>& tokens = vocabulary.tokens;
  for_each_line(read_file(path), [&](std::int64_t number, std::string_view line) {
    const std::size_t space = line.find(' ');
    std::int64_t rank = -1;
    if (space != line.npos) std::from_chars(line.data() + space + 1, line.data() + line.size(), rank);
    std::optional<std::string> bytes = base64_decoded(line.substr(0, space));
    if (!bytes || bytes->empty() || rank != std::int64_t(tokens.size())) {
      user_error("{}:{}: expected 'BASE64 {}' (ranks go up by one), found '{}'", path, number, tokens.size(), line.substr(0, 60));
    }
    tokens.push_back(std::move(*bytes));
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
    vocabulary.merges.push_back({parts[0], parts[1], id});
    merges.add(vocabulary.merges.back());
  }
  vocabulary.specials = qwen_special_tokens(std::uint32_t(tokens.size()));
}

void read_folder(const std::string& folder, BpeBuilder& builder) {
  auto has = [&](const char* name) { return fs::exists(fs::path(folder) / name); };
  if (has("tokenizer.json")) {
    read_tokenizer_json(folder + "/tokenizer.json", builder);
    if (has("tokenizer_config.json")) read_tokenizer_config(folder + "/tokenizer_config.json", builder);
    return;
  }
  if (has("vocab.json") && has("merges.txt")) return read_vocab_and_merges(folder, builder);
  std::vector<std::string> ranks;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".tiktoken") ranks.push_back(entry.path().string());
  }
  if (ranks.size() == 1) return read_tiktoken(ranks[0], builder.vocabulary);
  user_error("{}: holds no tokenizer; expected tokenizer.json, vocab.json with merges.txt, or one *.tiktoken (found {})", folder, ranks.size());
}

}  // namespace

BpeVocabulary read_bpe_vocabulary(const std::string& path) {
  if (!fs::exists(path)) user_error("{}: there is no such tokenizer; expected a folder or a file, or the name 'bytes'", path);
  const std::string ending = fs::path(path).extension().string();
  BpeBuilder builder;
  if (fs::is_directory(path)) {
    read_folder(path, builder);
  } else if (ending == ".tiktoken") {
    read_tiktoken(path, builder.vocabulary);
  } else if (ending == ".json") {
    read_tokenizer_json(path, builder);
  } else {
    user_error("{}: expected a folder, a tokenizer.json or a .tiktoken file", path);
  }
  if (std::string problem = problem_of(builder.vocabulary); !problem.empty()) user_error("{}: {}", path, problem);
  return std::move(builder.vocabulary);
}

}  // namespace af
