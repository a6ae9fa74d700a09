#include "launch/memory_job.h"

#include <cstdio>
#include <filesystem>

#include "core/error.h"
#include "data/file.h"
#include "launch/arguments.h"
#include "launch/progress.h"

namespace af {
namespace {

namespace fs = std::filesystem;
constexpr int kMostReports = 50;  // of problems, on the terminal

class Job {
 public:
  Job(const MemoryJobOptions& options, Memory& memory) : options_(options), memory_(memory), progress_("reading", options.terminal) {
    for (const MemoryInput& input : options.inputs) all_bytes_ += input.file.stamp.bytes;
  }

  void run() {
    for (const MemoryInput& input : options_.inputs) {
      if (!is_known(input)) read(input);
      done_bytes_ += input.file.stamp.bytes;
    }
    progress_.clear();
    if (total_.skipped > reported_) fmt::print(stderr, "{} lines or packages could not be used; {} are listed\n", total_.skipped, reported_);
  }

  const MemorySource& total() const { return total_; }

 private:
  std::string kind(const MemoryInput& input) const { return kSourceKindNames[std::size_t(input.kind)]; }

  // A file that was read to its end before, by its bytes.
  bool is_known(const MemoryInput& input) {
    std::string sha256;
    for (const MemorySource& source : memory_.sources()) {
      if (!source.finished || source.kind != kind(input) || source.bytes != input.file.stamp.bytes) continue;
      if (sha256.empty()) {
        InputFile file(input.file.name);
        std::vector<char> piece(1 << 20);
        while (file.read(piece.data(), piece.size()) > 0) {
        }
        sha256 = file.sha256();
      }
      if (source.sha256 != sha256) continue;
      progress_.clear();
      fmt::print(stderr, "{}: is in the memory already, as {}\n", input.file.name, source.name);
      return true;
    }
    return false;
  }

  void read(const MemoryInput& input) {
    MemorySource source{kind(input), input.file.name, "", 0, false, 0, 0, 0, 0, 0, 0, options_.licence};
    for (const MemorySource& known : memory_.sources()) {
      if (!known.finished && known.kind == source.kind && known.name == source.name) source = known;
    }
    if (!read_from(input, source)) {
      fmt::print(stderr, "{}: is not what it was when an earlier run read it; it is read anew\n", input.file.name);
      read_from(input,
                {source.kind, source.name, "", 0, false, 0, 0, 0, source.added, source.exact_duplicates, source.near_duplicates, source.licence});
    }
  }

  // False where the blocks that were read before are others now.
  bool read_from(const MemoryInput& input, MemorySource source) {
    const std::int64_t skip = source.blocks;
    const bool by_teacher = input.kind == SourceKind::documents && options_.document_reader;
    const std::unique_ptr<StatementReader> reader =
        by_teacher ? options_.document_reader(input.file.name) : make_reader(input.kind, input.file.name, options_.time);
    BlockReader blocks(input.file, 0, options_.max_line_bytes);
    TextBlock block;
    ReadStatements found;
    do {
      blocks.next(block);
      found.clear();
      // Of a block that is in, too: a package may end in the next one.
      if (block.number >= skip || input.kind == SourceKind::debian_index) reader->read(block, found);
      if (block.number < skip) {
        if (block.number + 1 == skip && block.sha256 != source.sha256) return false;
        if (block.last && block.number + 1 < skip) return false;
        continue;
      }
      if (skip > 0 && block.number == skip) fmt::print(stderr, "{}: going on where an earlier run stopped\n", input.file.name);
      report(found);
      const MemorySource before = source;
      source.blocks = block.number + 1, source.sha256 = block.sha256, source.bytes = block.file_bytes, source.finished = block.last;
      source.lines += block.lines, source.skipped += found.skipped;
      memory_.add(found.statements, &source);
      total_.added += source.added - before.added, total_.exact_duplicates += source.exact_duplicates - before.exact_duplicates;
      total_.near_duplicates += source.near_duplicates - before.near_duplicates, total_.skipped += found.skipped, total_.lines += block.lines;
      text_bytes_ += block.text_bytes;
      if (all_bytes_ > 0) progress_.show(double(done_bytes_ + block.file_bytes) / double(all_bytes_), text_bytes_);
    } while (!block.last);
    return true;
  }

  void report(const ReadStatements& found) {
    if (found.skipped > 0) progress_.clear();
    if (found.skipped > 0 && options_.strict) throw UserError(found.problems.front().what + " (--strict)");
    for (const LineProblem& problem : found.problems) {
      if (reported_ == kMostReports) break;
      fmt::print(stderr, "{}\n", problem.what);
      ++reported_;
    }
  }

  const MemoryJobOptions& options_;
  Memory& memory_;
  Progress progress_;
  MemorySource total_;  // of this run
  std::int64_t all_bytes_ = 0, done_bytes_ = 0, text_bytes_ = 0, reported_ = 0;
};

}  // namespace

Json memory_manifest(Memory& memory, const std::string& file_name) {
  const MemoryCounts counts = memory.counts();
  Json json;
  json.set("format", "af_memory_manifest");
  json.set("version", 1);
  json.set("program", fmt::format("af_synth memory {}", kVersion));
  json.set("memory", file_name);
  json.set("entities", counts.entities);
  json.set("statements", counts.statements);
  json.set("facts", counts.facts);
  Json& list = json.set("sources", Json::Array());
  for (const MemorySource& source : memory.sources()) {
    Json& entry = list.push_back(Json::Object());
    entry.set("kind", source.kind);
    entry.set("name", source.name);
    entry.set("bytes", source.bytes);
    entry.set("sha256", source.sha256);
    entry.set("finished", source.finished);
    entry.set("lines", source.lines);
    entry.set("skipped", source.skipped);
    entry.set("statements", source.added);
    entry.set("exact_duplicates", source.exact_duplicates);
    entry.set("near_duplicates", source.near_duplicates);
    entry.set("licence", source.licence.empty() ? Json() : Json(source.licence));
  }
  return json;
}

int run_memory_job(const MemoryJobOptions& options) {
  const std::string growing = options.append ? options.output : options.output + ".part";
  if (!options.append && fs::exists(options.output)) user_error("{}: is there already; --append adds to it", options.output);
  if (options.append && !fs::exists(options.output)) user_error("{}: there is no such memory; without --append it is made", options.output);
  MemorySource total;
  Json manifest;
  {
    Memory memory = Memory::open(growing, fs::exists(growing) ? Memory::Mode::append : Memory::Mode::create);
    Job job(options, memory);
    job.run();
    total = job.total();
    manifest = memory_manifest(memory, fs::path(options.output).filename().string());
  }
  if (!options.append && std::rename(growing.c_str(), options.output.c_str()) != 0)
    user_error("{}: cannot be renamed to {}", growing, options.output);
  const std::string manifest_name = options.output + ".manifest.json";
  write_file(manifest_name + ".tmp", manifest.dump(2) + "\n");
  if (std::rename((manifest_name + ".tmp").c_str(), manifest_name.c_str()) != 0) user_error("{}: cannot be written", manifest_name);
  fmt::print("{}: {} entities, {} statements, {} of them facts\n", options.output, manifest.find("entities")->integer(),
             manifest.find("statements")->integer(), manifest.find("facts")->integer());
  fmt::print("added {} statements; {} exact and {} near duplicates were left out; {} lines or packages could not be used\n", total.added,
             total.exact_duplicates, total.near_duplicates, total.skipped);
  return kExitDone;
}

}  // namespace af
