// af_data contamination: which documents of a corpus repeat a benchmark's questions, and the corpus without them.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "core/error.h"
#include "data/chat.h"
#include "data/contamination.h"
#include "data/file.h"
#include "data/json.h"
#include "data/segments.h"
#include "data/synthesis/in_order.h"
#include "data/utf8.h"
#include "launch/data_commands.h"
#include "launch/data_inputs.h"
#include "launch/progress.h"

namespace af {
namespace {

constexpr std::int64_t kMostReports = 20;         // lines and questions that are named one by one
constexpr std::size_t kQuoted = 100;              // bytes of a question

struct FoundDocument {
  std::int64_t line;
  std::vector<BenchmarkIndex::Hit> hits;
};

struct BlockFindings {
  std::int64_t source = 0, documents = 0, text_bytes = 0, file_bytes = 0;
  bool last = false;
  std::vector<FoundDocument> found;
  std::vector<std::string> problems;
  std::string kept;  // lines without what was found or cannot be read; where asked for
};

// What 'af_data tokenize' would make a document of.
std::string text_of_line(const JsonView& line, const std::string& text_key) {
  std::string text;
  if (text_key.empty() && line.has("segments")) {
    for (const RoleText& segment : segments_from(line["segments"])) text += segment.text;
  } else if (text_key.empty() && line.has("messages")) {
    for (const Message& message : messages_from(line["messages"])) text += message.content + "\n";
  } else {
    text = line[text_key.empty() ? "text" : text_key].string();
  }
  return text;
}

template <class F>
void for_each_line(const TextBlock& block, F&& f) {  // f(line, number), but for blank ones
  std::string_view rest = block.text;
  for (std::int64_t number = block.first_line; !rest.empty(); ++number) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.find_first_not_of(" \t\r") != line.npos) f(line, number);
  }
}

// A file that is whole or not there.
class NewFile {
 public:
  explicit NewFile(const std::string& path) : path_(path), temporary_(path + ".tmp"), out_(temporary_, std::ios::binary) { check(); }
  ~NewFile() {
    if (!closed_) std::remove(temporary_.c_str());
  }
  NewFile(const NewFile&) = delete;
  void write(std::string_view bytes) {
    out_.write(bytes.data(), std::streamsize(bytes.size()));
    check();
  }
  void close() {
    out_.close();
    check();
    if (std::rename(temporary_.c_str(), path_.c_str()) != 0) user_error("{}: cannot be renamed to {}", temporary_, path_);
    sync_folder(std::filesystem::absolute(path_).parent_path().string());
    closed_ = true;
  }

 private:
  void check() const {
    if (!out_) user_error("{}: cannot be written", temporary_);
  }
  std::string path_, temporary_;
  std::ofstream out_;
  bool closed_ = false;
};

class ContaminationJob {
 public:
  explicit ContaminationJob(const Arguments& arguments)
      : sources_(text_sources(arguments.values("--input"))),
        benchmarks_(text_sources(arguments.values("--benchmark"))),
        text_key_(arguments.value("--text-key")),
        question_key_(arguments.value("--benchmark-key")),
        index_(int(arguments.integer("--ngram", 13, 3, 100))),
        max_line_bytes_(arguments.integer("--max-line-bytes", 16 << 20, 1024, 1 << 30)),
        threads_(int(arguments.integer("--threads", std::max(1u, std::thread::hardware_concurrency()), 1, 1024))) {
    for (const std::vector<TextSource>* sources : {&sources_, &benchmarks_})
      for (const TextSource& source : *sources)
        if (!source.lines) user_error("{}: expected JSON lines (.jsonl, also .gz and .zst)", source.name);
    if (arguments.has("--remove") != arguments.has("--output")) user_error("--remove and --output FILE go together: the corpus without what was found");
    const std::string output = arguments.value("--output"), report = arguments.value("--report");
    std::vector<std::string> inputs;
    for (const std::vector<TextSource>* sources : {&sources_, &benchmarks_})
      for (const TextSource& source : *sources) inputs.push_back(source.name);
    for (const std::string& path : {output, report}) check_output(path, inputs);
    if (!output.empty() && output == report) user_error("--output and --report are both {}", output);
    if (!output.empty()) output_.emplace(output);
    if (!report.empty()) report_.emplace(report);
  }

  int run() {
    const auto begin = std::chrono::steady_clock::now();
    for (const TextSource& source : benchmarks_) read_benchmark(source);
    if (index_.size() == 0) user_error("there is no question in --benchmark");
    index_.finish();
    documents_of_.assign(std::size_t(index_.size()), 0), most_of_.assign(std::size_t(index_.size()), 0);
    search_corpus();
    if (skipped_ > kMostReports) fmt::print(stderr, "... {} lines in all that cannot be used\n", skipped_);
    if (output_) output_->close();
    if (report_) report_->close();
    print_questions();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    fmt::print("{} of {} documents repeat {} of {} questions{}; {:.1f} MB in {:.1f} s ({:.1f} MB/s); {} lines skipped\n", found_, documents_,
               std::count_if(documents_of_.begin(), documents_of_.end(), [](std::int64_t n) { return n > 0; }), index_.size(),
               index_.too_short() > 0 ? fmt::format(" ({} are too short to be looked for)", index_.too_short()) : "", double(text_bytes_) / 1e6, seconds,
               double(text_bytes_) / 1e6 / std::max(seconds, 1e-3), skipped_);
    return kExitDone;
  }

 private:
  void skip(const std::string& why) {
    if (++skipped_ <= kMostReports) fmt::print(stderr, "{}\n", printable(why.substr(0, 400)));
  }

  void read_benchmark(const TextSource& source) {
    BlockReader reader(source, 0, max_line_bytes_);
    TextBlock block;
    do {
      reader.next(block);
      for (const LineProblem& problem : block.problems) user_error("{}:{}: {}", source.name, problem.line, problem.what);
      for_each_line(block, [&](std::string_view line, std::int64_t number) {
        const Json json = Json::parse(line, source.name, number);
        const JsonView view(json, fmt::format("{}:{}", source.name, number));
        const std::string key = !question_key_.empty() ? question_key_ : view.has("question") ? "question" : "text";
        if (!view.has(key)) user_error("{}: has no '{}'; --benchmark-key names the member that holds the question", view.where(), key);
        const std::string& question = view[key].string();
        index_.add(question);
        questions_.push_back(fmt::format("{}:{}", source.name, number));
        quotes_.push_back(question.size() > kQuoted ? question.substr(0, kQuoted) + "..." : question);
      });
    } while (!block.last);
  }

  void search_corpus() {
    Progress progress("contamination", ::isatty(STDERR_FILENO) != 0);
    std::int64_t all_bytes = 0, done = 0;
    for (const TextSource& source : sources_) all_bytes += source.stamp.bytes;
    std::size_t source = 0;
    std::optional<BlockReader> reader;
    in_order<TextBlock, BlockFindings>(
        threads_,
        [&]() -> std::optional<TextBlock> {
          if (source == sources_.size()) return std::nullopt;
          if (!reader) reader.emplace(sources_[source], std::int64_t(source), max_line_bytes_);
          TextBlock block;
          reader->next(block);
          if (block.last) reader.reset(), ++source;
          return block;
        },
        [&](TextBlock& block) { return search(block); },
        [&](BlockFindings& block) {
          if (!block.problems.empty()) progress.clear();
          for (const std::string& problem : block.problems) skip(problem);
          for (const FoundDocument& document : block.found) add(sources_[std::size_t(block.source)].name, document);
          documents_ += block.documents, found_ += std::int64_t(block.found.size()), text_bytes_ += block.text_bytes;
          if (output_) output_->write(block.kept);
          progress.show(all_bytes > 0 ? double(done + block.file_bytes) / double(all_bytes) : 1, text_bytes_);
          if (block.last) done += block.file_bytes;
        },
        [] {});
  }

  BlockFindings search(const TextBlock& block) const {
    const std::string& name = sources_[std::size_t(block.source)].name;
    BlockFindings findings;
    findings.source = block.source, findings.text_bytes = block.text_bytes, findings.file_bytes = block.file_bytes, findings.last = block.last;
    for (const LineProblem& problem : block.problems) findings.problems.push_back(fmt::format("{}:{}: {}", name, problem.line, problem.what));
    BenchmarkIndex::Search search(index_);
    for_each_line(block, [&](std::string_view line, std::int64_t number) {
      try {
        const Json json = Json::parse(line, name, number);
        const std::vector<BenchmarkIndex::Hit>& hits = search.find(text_of_line(JsonView(json, fmt::format("{}:{}", name, number)), text_key_));
        ++findings.documents;
        if (!hits.empty()) {
          findings.found.push_back({number, hits});
        } else if (output_) {
          findings.kept.append(line).push_back('\n');
        }
      } catch (const UserError& error) {
        findings.problems.push_back(error.what());
      }
    });
    return findings;
  }

  void add(const std::string& source, const FoundDocument& document) {
    for (const BenchmarkIndex::Hit& hit : document.hits) {
      const std::size_t q = std::size_t(hit.question);
      ++documents_of_[q];
      most_of_[q] = std::max(most_of_[q], hit.shared);
      if (!report_) continue;
      Json line;
      line.set("document", fmt::format("{}:{}", source, document.line));
      line.set("question", questions_[q]);
      line.set("shared_ngrams", hit.shared);
      line.set("question_ngrams", index_.ngrams_of(hit.question));
      report_->write(line.dump() + "\n");
    }
  }

  void print_questions() const {  // those found in most documents first
    std::vector<std::size_t> found;
    for (std::size_t q = 0; q < documents_of_.size(); ++q)
      if (documents_of_[q] > 0) found.push_back(q);
    std::stable_sort(found.begin(), found.end(), [&](std::size_t a, std::size_t b) { return documents_of_[a] > documents_of_[b]; });
    for (std::size_t i = 0; i < std::min(found.size(), std::size_t(kMostReports)); ++i) {
      const std::size_t q = found[i];
      fmt::print("{}: in {} documents, at most {} of its {} n-grams: {}\n", questions_[q], documents_of_[q], most_of_[q],
                 index_.ngrams_of(int(q)), printable(quotes_[q]));
    }
    if (found.size() > std::size_t(kMostReports)) fmt::print("... and {} more (--report FILE has all)\n", found.size() - std::size_t(kMostReports));
  }

  std::vector<TextSource> sources_, benchmarks_;
  std::string text_key_, question_key_;
  BenchmarkIndex index_;
  std::int64_t max_line_bytes_;
  int threads_;
  std::optional<NewFile> output_, report_;
  std::vector<std::string> questions_, quotes_;  // where each stands, how it begins
  std::vector<std::int64_t> documents_of_;       // per question
  std::vector<int> most_of_;
  std::int64_t documents_ = 0, found_ = 0, text_bytes_ = 0, skipped_ = 0;
};

}  // namespace

Command contamination_command() {
  return {"contamination",
          "finds documents that repeat a benchmark's questions, and can leave them out",
          "",
          0,
          0,
          {{"--input", Takes::values, "FILE", "the corpus: JSON lines as 'af_data tokenize' reads them; also .gz and .zst; patterns may be quoted", {}, true},
           {"--benchmark", Takes::values, "FILE", "JSON lines with the questions, in 'question' or 'text'", {}, true},
           {"--benchmark-key", Takes::one_value, "KEY", "the member that holds the question", {}, false},
           {"--text-key", Takes::one_value, "KEY", "the member that holds a document's text; where given, 'messages' and 'segments' are not looked at", {}, false},
           {"--ngram",
            Takes::one_value,
            "N",
            "so many words in a row in common (default 13, as GPT-3's authors took; case and punctuation do not count); a shorter question as a whole, of "
            "8 words at least",
            {},
            false},
           {"--remove", Takes::nothing, "", "write the lines of the corpus that repeat no question to --output; lines that cannot be used are left out", {}, false},
           {"--output", Takes::one_value, "X.jsonl", "with --remove", {}, false},
           {"--report", Takes::one_value, "X.jsonl", "a line for each document and question: where they stand, how many n-grams they have in common", {}, false},
           {"--max-line-bytes", Takes::one_value, "N", "a longer line is reported and skipped (default 16777216, as in tokenize); bounds the memory", {}, false},
           {"--threads", Takes::one_value, "N", "default: all cores; the result does not depend on it", {}, false}},
          {"af_data contamination --input has.jsonl fas.jsonl --benchmark browsecomp.jsonl",
           "af_data contamination --input 'crawl/part-*.jsonl.zst' --benchmark gaia.jsonl hle.jsonl --remove --output clean.jsonl --report found.jsonl"},
          [](const Arguments& arguments) { return ContaminationJob(arguments).run(); }};
}

}  // namespace af
