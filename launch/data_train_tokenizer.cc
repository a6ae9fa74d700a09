// af_data train-tokenizer: a byte-level BPE vocabulary learned from text, as a folder that Hugging Face's libraries load.
#include <algorithm>
#include <chrono>
#include <filesystem>

#include "core/error.h"
#include "data/bpe_json.h"
#include "data/bpe_trainer.h"
#include "data/chat.h"
#include "data/json.h"
#include "data/segments.h"
#include "data/utf8.h"
#include "launch/data_commands.h"
#include "launch/data_inputs.h"

namespace af {
namespace {

constexpr std::int64_t kMostReports = 20;          // skipped lines that are named one by one
constexpr std::int64_t kMaxLineBytes = 256 << 20;  // a document is held in memory once
constexpr std::int64_t kMinVocabSize = 256 + 26, kMaxVocabSize = 1 << 24;

class TrainTokenizerJob {
 public:
  explicit TrainTokenizerJob(const Arguments& arguments)
      : sources_(text_sources(arguments.values("--input"))),
        output_(arguments.value("--output")),
        text_key_(arguments.value("--text-key")),
        vocab_size_(arguments.integer("--vocab-size", 0)),
        strict_(arguments.has("--strict")) {
    if (vocab_size_ < kMinVocabSize || vocab_size_ > kMaxVocabSize) {
      user_error("--vocab-size {}: expected {} (256 bytes and Qwen's 26 special tokens) to {}", vocab_size_, kMinVocabSize, kMaxVocabSize);
    }
    std::error_code error;
    std::filesystem::create_directories(output_, error);
    if (error) user_error("--output {}: the folder cannot be made: {}", output_, error.message());
  }

  int run() {
    const auto begin = std::chrono::steady_clock::now();
    for (const TextSource& source : sources_) read(source);
    if (skipped_ > kMostReports) fmt::print(stderr, "... and {} more\n", skipped_ - kMostReports);
    if (strict_ && skipped_ > 0) user_error("{} lines cannot be used; nothing was written (--strict)", skipped_);
    if (bytes_ == 0) user_error("there is no text in the input; nothing was written");
    const BpeVocabulary vocabulary = trainer_.train(vocab_size_);
    write_tokenizer_json(vocabulary, output_);
    const std::size_t ids = vocabulary.tokens.size() + vocabulary.specials.size();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    fmt::print("{}: {} ids (256 bytes, {} learned, {} special) from {:.1f} MB of text in {:.1f} s; {} lines skipped\n", output_, ids,
               vocabulary.tokens.size() - 256, vocabulary.specials.size(), double(bytes_) / 1e6, seconds, skipped_);
    if (std::int64_t(ids) < vocab_size_) fmt::print("no pair of tokens is left that occurs twice: the text gives no {} ids\n", vocab_size_);
    return kExitDone;
  }

 private:
  void read(const TextSource& source) {
    BlockReader reader(source, 0, kMaxLineBytes);
    TextBlock block;
    do {
      reader.next(block);
      for (const LineProblem& problem : block.problems) skip(fmt::format("{}:{}: {}", source.name, problem.line, problem.what));
      if (source.lines) {
        read_lines(source, block);
      } else if (block.problems.empty()) {
        const std::size_t invalid = first_invalid_utf8(block.text);
        invalid == block.text.size() ? add(block.text) : skip(fmt::format("{}: byte {} is not UTF-8", source.name, invalid));
      }
    } while (!block.last);
  }

  void read_lines(const TextSource& source, const TextBlock& block) {
    std::string_view rest = block.text;
    for (std::int64_t number = block.first_line; !rest.empty(); ++number) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      const std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      if (line.find_first_not_of(" \t\r") == line.npos) continue;
      try {
        const Json json = Json::parse(line, source.name, number);
        add_line(JsonView(json, fmt::format("{}:{}", source.name, number)));
      } catch (const UserError& error) {
        skip(error.what());
      }
    }
  }

  void add_line(const JsonView& line) {
    if (text_key_.empty() && line.has("segments")) {
      std::string text;
      for (const RoleText& segment : segments_from(line["segments"])) text += segment.text;
      add(text);
    } else if (text_key_.empty() && line.has("messages")) {
      for (const Message& message : messages_from(line["messages"])) add(message.content);
    } else {
      add(line[text_key_.empty() ? "text" : text_key_].string());
    }
  }

  void add(std::string_view text) {
    trainer_.add(text);
    bytes_ += std::int64_t(text.size());
  }

  void skip(const std::string& why) {
    if (++skipped_ <= kMostReports) fmt::print(stderr, "{}\n", why);
  }

  std::vector<TextSource> sources_;
  std::string output_, text_key_;
  std::int64_t vocab_size_;
  bool strict_;
  BpeTrainer trainer_;
  std::int64_t bytes_ = 0, skipped_ = 0;
};

}  // namespace

Command train_tokenizer_command() {
  return {"train-tokenizer",
          "learns a byte-level BPE vocabulary (Qwen's split of words and special tokens)",
          "",
          0,
          0,
          {{"--input",
            Takes::values,
            "FILE",
            "JSON lines, each {\"text\": ...}, {\"messages\": [{\"role\", \"content\"}]} or {\"segments\": [{\"role\", \"text\"}]}; or .txt; also .gz "
            "and .zst; patterns may be quoted",
            {},
            true},
           {"--vocab-size", Takes::one_value, "N", "ids in all, with the 256 bytes and the 26 special tokens", {}, true},
           {"--output", Takes::one_value, "FOLDER", "gets tokenizer.json and tokenizer_config.json, for --tokenizer and transformers", {}, true},
           {"--text-key",
            Takes::one_value,
            "KEY",
            "the member that holds the text (default 'text'); where given, 'messages' and 'segments' are not looked at",
            {},
            false},
           {"--strict", Takes::nothing, "", "a line that cannot be used fails the whole (default: it is reported and skipped)", {}, false}},
          {"af_data train-tokenizer --input corpus.jsonl --vocab-size 32000 --output tokenizer",
           "af_data train-tokenizer --input 'crawl/part-*.jsonl.zst' --text-key body --vocab-size 151936 --output tokenizer"},
          [](const Arguments& arguments) { return TrainTokenizerJob(arguments).run(); }};
}

}  // namespace af
