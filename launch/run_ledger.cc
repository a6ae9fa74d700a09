#include "launch/run_ledger.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

#include "core/error.h"

namespace af {
namespace {

constexpr std::int64_t kSequencesPerEntry = 4096;  // what a replay walks at most, a step's own besides

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

std::string path_in(const std::string& output_dir) { return output_dir + "/data_ledger.jsonl"; }

File open(const std::string& path, const char* mode) {
  File file(std::fopen(path.c_str(), mode), std::fclose);
  if (!file) user_error("{}: {}", path, std::strerror(errno));
  return file;
}

Json to_json(const LedgerEntry& entry) {
  Json json, sources = Json::Array{};
  for (const SourceSpec& source : entry.sources) {
    Json one;
    one.set("path", source.path);
    one.set("name", source.name);
    one.set("weight", source.weight);
    sources.push_back(std::move(one));
  }
  json.set("iteration", entry.iteration);
  json.set("last_iteration", entry.last_iteration);
  json.set("stage", entry.stage);
  json.set("seed", std::int64_t(entry.seed));
  json.set("seq_length", entry.seq_length);
  json.set("global_batch_size", entry.global_batch_size);
  json.set("packing", name_of(entry.packing));
  json.set("sources", std::move(sources));
  json.set("stream", af::to_json(entry.stream));
  return json;
}

LedgerEntry entry_from(const JsonView& json) {
  LedgerEntry entry;
  entry.iteration = json["iteration"].integer();
  entry.last_iteration = json["last_iteration"].integer();
  entry.stage = json["stage"].string();
  entry.seed = std::uint64_t(json["seed"].integer());
  entry.seq_length = json["seq_length"].integer();
  entry.global_batch_size = json["global_batch_size"].integer();
  entry.packing = packing_from(json["packing"]);
  JsonView sources = json["sources"];
  for (std::size_t i = 0; i < sources.size(); ++i)
    entry.sources.push_back({sources[i]["path"].string(), sources[i]["name"].string(), sources[i]["weight"].number()});
  entry.stream = stream_state_from(json["stream"]);
  return entry;
}

// The first line that begins at or behind `offset`; false where there is none that is whole.
bool line_from(std::FILE* file, std::int64_t offset, std::int64_t& begin, std::string& line) {
  begin = offset;
  int c = '\n';
  if (offset > 0) {  // the line begins here if the character before ends another
    std::fseek(file, offset - 1, SEEK_SET);
    while ((c = std::fgetc(file)) != EOF && c != '\n') ++begin;
  } else {
    std::fseek(file, 0, SEEK_SET);
  }
  line.clear();
  while (c != EOF && (c = std::fgetc(file)) != EOF && c != '\n') line.push_back(char(c));
  return c == '\n';
}

// The last entry of an iteration below `iteration`, and where it ends in the file; 0: there is none.
std::int64_t last_before(const std::string& path, std::int64_t iteration, LedgerEntry& entry) {
  File file = open(path, "rbe");
  std::fseek(file.get(), 0, SEEK_END);
  std::int64_t low = 0, high = std::ftell(file.get()), end = 0;  // the first line of a later iteration begins in [low, high]
  std::string line;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    std::int64_t begin = 0;
    if (!line_from(file.get(), middle, begin, line)) {
      high = middle;
      continue;
    }
    Json json = Json::parse(line, path);
    LedgerEntry found = entry_from(JsonView(json, path));
    if (found.iteration >= iteration) {
      high = middle;
    } else {
      low = end = begin + std::int64_t(line.size()) + 1;
      entry = std::move(found);
    }
  }
  return end;
}

}  // namespace

RunLedger::RunLedger(const std::string& output_dir) : path_(path_in(output_dir)) { open(path_, "abe"); }

void RunLedger::begin(LedgerEntry entry) {
  LedgerEntry before;
  std::filesystem::resize_file(path_, std::uintmax_t(last_before(path_, entry.iteration, before)));
  std::erase_if(waiting_, [&](const LedgerEntry& one) { return one.iteration >= entry.iteration; });
  waiting_.push_back(entry_ = std::move(entry));
  write();
}

void RunLedger::step(std::int64_t iteration, const StreamState& stream) {
  if (stream.consumed_sequences - entry_.stream.consumed_sequences >= kSequencesPerEntry) {
    entry_.iteration = iteration;
    entry_.stream = stream;
    waiting_.push_back(entry_);
  }
  if (!waiting_.empty()) write();
}

void RunLedger::write() {
  for (error_.clear(); !waiting_.empty(); waiting_.erase(waiting_.begin())) {
    const std::uintmax_t size = std::filesystem::file_size(path_);
    File file = open(path_, "abe");
    const std::string line = to_json(waiting_.front()).dump() + "\n";
    if (std::fwrite(line.data(), 1, line.size(), file.get()) == line.size() && std::fflush(file.get()) == 0) continue;
    error_ = std::strerror(errno);
    file.reset();
    std::filesystem::resize_file(path_, size);
    return;
  }
}

StepContents replay_step(const std::string& output_dir, std::int64_t step) {
  const std::string path = path_in(output_dir);
  LedgerEntry entry;
  if (step < 1) user_error("step {}: steps count from 1", step);
  if (last_before(path, step, entry) == 0) user_error("{}: step {} is not in this directory's part of the run", path, step);
  if (step > entry.last_iteration)
    user_error("{}: step {} has not begun: the last stage there, {}, ends at step {}", path, step, entry.stage, entry.last_iteration);
  SequenceStream stream(entry.sources, entry.seq_length, entry.seed, entry.stream, Order::shuffled, entry.packing);
  stream.skip((step - 1 - entry.iteration) * entry.global_batch_size);
  return {entry, stream.contents(entry.global_batch_size)};
}

}  // namespace af
