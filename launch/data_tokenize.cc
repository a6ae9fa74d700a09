// af_data tokenize: files of text and chat messages become one token dataset, document by document, in bounded memory.
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>

#include "core/error.h"
#include "data/chat.h"
#include "data/file.h"
#include "data/json.h"
#include "data/token_dataset.h"
#include "data/tokenizer.h"
#include "launch/data_commands.h"

namespace af {
namespace {

namespace fs = std::filesystem;
constexpr std::int64_t kMostReports = 20;  // skipped lines that are named one by one

bool is_json_lines(const std::string& path) {
  std::string ending = fs::path(path).extension().string();
  if (ending == ".jsonl" || ending == ".ndjson" || ending == ".json") return true;
  if (ending == ".txt" || ending == ".md") return false;
  user_error("{}: the name must end in .jsonl, .ndjson or .json (an object a line) or in .txt or .md (one document a file)", path);
}

void check_inputs(const std::vector<std::string>& paths) {
  std::string problems;
  for (const std::string& path : paths) {
    try {
      is_json_lines(path);
      if (fs::is_directory(path)) user_error("{}: is a folder; name the files in it", path);
      if (!std::ifstream(path)) user_error("{}: cannot be read", path);
    } catch (const UserError& error) {
      problems += (problems.empty() ? "" : "\n") + std::string(error.what());
    }
  }
  if (!problems.empty()) throw UserError(problems);
}

class TokenizeJob {
 public:
  explicit TokenizeJob(const Arguments& arguments)
      : tokenizer_(make_tokenizer(arguments.value("--tokenizer"))),
        encoder_(tokenizer_->encoder()),
        specials_(arguments.value("--special-tokens-in-text") == "recognise" ? SpecialTokens::recognise : SpecialTokens::split),
        only_text_(arguments.has("--text-key")),
        text_key_(arguments.value("--text-key", "text")) {}

  int run(const std::vector<std::string>& inputs, const std::string& output, bool strict) {
    check_inputs(inputs);
    auto begin = std::chrono::steady_clock::now();
    std::string source;
    for (const std::string& input : inputs) source += (source.empty() ? "" : " ") + fs::path(input).filename().string();
    writer_.emplace(output, TokenDatasetInfo{tokenizer_->sha256(), tokenizer_->vocab_size(), tokenizer_->eod_token(), source});
    for (const std::string& input : inputs) is_json_lines(input) ? read_lines(input) : read_text(input);
    if (skipped_ > kMostReports) fmt::print(stderr, "... and {} more\n", skipped_ - kMostReports);
    if (strict && skipped_ > 0) user_error("{} lines cannot be used; nothing was written (--strict)", skipped_);
    if (writer_->num_documents() == 0) user_error("there is no document in the input; nothing was written");
    writer_->close();
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    fmt::print("{}: {} documents, {} tokens from {} file(s), {:.1f} MB in {:.1f} s; {} lines skipped\n", output, writer_->num_documents(),
               writer_->num_tokens(), inputs.size(), double(bytes_) / 1e6, seconds, skipped_);
    return kExitDone;
  }

 private:
  void read_lines(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string line;
    for (std::int64_t number = 1; std::getline(file, line); ++number) {
      bytes_ += std::int64_t(line.size()) + 1;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      try {
        Json json = Json::parse(line, path, number);
        add(JsonView(json, fmt::format("{}:{}", path, number)));
      } catch (const UserError& error) {
        skip(error.what());
      }
    }
    if (file.bad()) throw std::runtime_error(path + ": reading failed");
  }

  void read_text(const std::string& path) {
    std::string text = read_file(path);
    bytes_ += std::int64_t(text.size());
    document_.clear();
    encoder_->encode(text, specials_, document_.tokens);
    if (text.empty()) return skip(fmt::format("{}: the file is empty", path));
    writer_->add_document(document_.tokens);
  }

  void add(const JsonView& line) {
    document_.clear();
    if (!only_text_ && line.has("messages")) {
      render_chat(*encoder_, messages_from(line["messages"]), specials_, document_);
    } else if (line.has(text_key_)) {
      encoder_->encode(line[text_key_].string(), specials_, document_.tokens);
    } else {
      user_error("{}: expected an object with '{}'{}, found {}", line.where(), text_key_, only_text_ ? "" : " or 'messages'",
                 line.value().describe());
    }
    if (document_.tokens.empty()) user_error("{}: the text is empty", line.where());
    writer_->add_document(document_.tokens, document_.roles);
  }

  void skip(const std::string& why) {
    if (++skipped_ <= kMostReports) fmt::print(stderr, "{}\n", why);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Encoder> encoder_;
  SpecialTokens specials_;
  bool only_text_;
  std::string text_key_;
  std::optional<TokenDatasetWriter> writer_;
  Document document_;
  std::int64_t skipped_ = 0, bytes_ = 0;
};

}  // namespace

Command tokenize_command() {
  return {"tokenize",
          "turns text and chat messages into a token dataset",
          "",
          0,
          0,
          {{"--tokenizer", Takes::one_value, "NAME", "'bytes': 256 bytes and Qwen's special tokens", {}, true},
           {"--input",
            Takes::values,
            "FILE",
            "JSON lines, each {\"text\": ...} or {\"messages\": [{\"role\", \"content\"}]}; or .txt, one document a file",
            {},
            true},
           {"--output", Takes::one_value, "X.h5", "the dataset; replaced in one step when all is written", {}, true},
           {"--text-key",
            Takes::one_value,
            "KEY",
            "the member that holds the text (default 'text'); where given, 'messages' are not looked at",
            {},
            false},
           {"--special-tokens-in-text",
            Takes::one_value,
            "",
            "what <|...|> in the input is: ordinary text (split, the default) or the token",
            {"split", "recognise"},
            false},
           {"--strict", Takes::nothing, "", "a line that cannot be used fails the whole (default: it is reported and skipped)", {}, false}},
          {"af_data tokenize --tokenizer bytes --input trajectories.jsonl --output trajectories.h5",
           "af_data tokenize --tokenizer bytes --input part-*.jsonl --text-key body --strict --output corpus.h5"},
          [](const Arguments& arguments) {
            return TokenizeJob(arguments).run(arguments.values("--input"), arguments.value("--output"), arguments.has("--strict"));
          }};
}

}  // namespace af
