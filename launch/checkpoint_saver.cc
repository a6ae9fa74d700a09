#include "launch/checkpoint_saver.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <filesystem>
#include <functional>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "data/file.h"
#include "launch/checkpoint_manifest.h"
#include "launch/checkpoint_stream.h"
#include "launch/hf_config.h"
#include "parallel/together.h"

namespace af {
namespace {

namespace fs = std::filesystem;
constexpr char kReplaced[] = ".old.tmp";

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// A folder that nobody takes for a checkpoint from the first moment on.
void remove_folder(const fs::path& path) {
  fs::path aside = path;
  if (!path.native().ends_with(".tmp")) fs::rename(path, aside += ".tmp");
  fs::remove_all(aside);
}

// "stage1-12.tmp", "stage1-12.old.tmp": what this program makes and nobody else.
bool is_leftover(const fs::directory_entry& entry) {
  std::string name = entry.path().filename().string();
  for (const char* end : {".tmp", ".old"})
    if (name.ends_with(end)) name.resize(name.size() - 4);
    else if (end[1] == 't') return false;
  const std::size_t digits = name.find_last_not_of("0123456789") + 1;
  return digits > 1 && digits < name.size() && name[digits - 1] == '-' && entry.is_directory() && !entry.is_symlink();
}

void remove_leftovers(const std::string& root, std::vector<std::string>& removed) {
  for (const fs::directory_entry& entry : fs::directory_iterator(root))
    if (is_leftover(entry)) {
      removed.push_back(entry.path().filename().string());
      fs::remove_all(entry.path());
    }
}

std::string describe(const MeshShape& s) {
  return fmt::format("{} ranks: TP {}, PP {}, CP {}, DP {}, EP {}, ETP {}", s.world(), s.tp, s.pp, s.cp, s.dp, s.ep, s.etp);
}

// Runs `work` on a thread of its own; what it throws is its error.
class Background {
 public:
  explicit Background(std::function<void()> work) : thread_([this, work = std::move(work)] {
          try {
            work();
          } catch (const std::exception& error) {
            error_ = error.what();
          }
          done_ = true;
          done_.notify_all();
        }) {}
  ~Background() { thread_.join(); }
  bool done() const { return done_; }
  void wait() const { done_.wait(false); }
  const std::string& error() const { return error_; }  // once it is done

 private:
  std::string error_;
  std::atomic<bool> done_ = false;
  std::thread thread_;
};

}  // namespace

std::vector<std::string> remove_old_checkpoints(const std::string& root, std::int64_t keep, std::int64_t keep_every) {
  std::vector<std::string> removed;
  remove_leftovers(root, removed);
  if (keep <= 0) return removed;
  std::int64_t kept = 0;
  const std::string latest = latest_checkpoint(root);
  for (const std::string& path : checkpoints_in(root)) {  // newest first
    TrainingState state;
    try {
      state = read_state(path);
    } catch (const UserError&) {
      continue;  // damaged: a person may want to see it
    }
    if (state.stage_finished || (keep_every > 0 && state.iteration % keep_every == 0) || kept++ < keep || path == latest) continue;
    removed.push_back(fs::path(path).filename().string());
    remove_folder(path);
  }
  return removed;
}

void remove_checkpoint(const std::string& path) { remove_folder(path); }

std::string set_aside_checkpoint(const std::string& path) {
  const fs::path from(path), folder = from.parent_path() / "aside";
  make_folder(folder.string());
  fs::path to = folder / from.filename();
  for (int n = 2; fs::exists(fs::symlink_status(to)); ++n) to = folder / fmt::format("{}.{}", from.filename().string(), n);
  fs::rename(from, to);
  sync_folder(folder.string());
  sync_folder(from.parent_path().string());
  return to.string();
}

void restore_replaced(const std::string& root) {
  std::error_code none;
  for (const fs::directory_entry& entry : fs::directory_iterator(root, none)) {
    std::string path = entry.path().string();
    if (!path.ends_with(kReplaced)) continue;
    path.resize(path.size() - std::string_view(kReplaced).size());
    if (iteration_of(path) >= 0 && !fs::exists(path)) fs::rename(entry.path(), path);
  }
}

void point_latest(const std::string& root, const std::string& name) {
  const std::string aside = root + "/latest.tmp", latest = root + "/latest";
  if (fs::is_directory(fs::symlink_status(latest))) set_aside_checkpoint(latest);  // a copy that followed the link
  fs::remove(aside);
  fs::create_symlink(name, aside);
  fs::rename(aside, latest);
  sync_folder(root);
}

void publish_checkpoint(const std::string& aside, const std::string& path) {
  const fs::path to(path), root = to.parent_path();
  sync_folder(aside);
  if (!fs::exists(to)) {
    fs::rename(aside, to);
  } else if (::renameat2(AT_FDCWD, aside.c_str(), AT_FDCWD, path.c_str(), RENAME_EXCHANGE) != 0) {  // where the file system cannot
    fs::rename(to, path + kReplaced);
    fs::rename(aside, to);
  }
  sync_folder(root.string());
  point_latest(root.string(), to.filename().string());
  fs::remove_all(aside);
  fs::remove_all(path + kReplaced);
}

// One save. Ranks agree on where it stands by one reduction at each step boundary.
class CheckpointSaver::Job {
 public:
  Job(const std::string& root, const SaveOptions& options, const TrainingState& state, const CheckpointParts& parts, const std::string& run_yaml)
      : root_(root), options_(options), world_(parts.mesh.world), begin_(now()), stream_(parts.parameters, parts.optimizer, options.staging_bytes) {
    outcome_.path = fmt::format("{}/{}-{}", root, state.stage_name, state.iteration);
    outcome_.iteration = state.iteration;
    aside_ = outcome_.path + ".tmp";
    texts_ = {{"state.json", state_text(state, parts)}, {"run.yaml", run_yaml},
              {"config.json", write_hf_config(parts.model, name_of(accumulator_of(parts.parameters.dtype()))).dump(2) + "\n"}};
    if (state.stage_finished) texts_.emplace_back(kStageFinishedFile, stage_finished_text(state));
    manifest_.layout = describe(parts.mesh.shape);
    manifest_.dtype = accumulator_of(parts.parameters.dtype());
    std::int64_t needed = most_shard_bytes(stream_.table(), manifest_.dtype, 3) + 256;  // and its lines in the manifest
    if (world_.rank() == 0)
      for (const auto& [name, text] : texts_) needed += std::int64_t(text.size()) + 4096;
    world_.all_reduce(Tensor(&needed, DType::i64, {1})).wait();
    attempt([&] {
      if (world_.rank() == 0) prepare(needed);
    });
    if (outcome_.error.empty() && stream_.table().elements > 0)
      work_.emplace([this] { shard_ = stream_.write(aside_ + "/" + shard_file(world_.rank())); });
    outcome_.blocked_seconds = now() - begin_;
  }
  ~Job() { stream_.stop(); }

  // One look at a step boundary; true: the outcome is there.
  bool advance(bool wait) {
    const double begin = now();
    bool ended = false;
    do {
      if (wait && work_) work_->wait();
      ended = look();
    } while (wait && !ended);
    outcome_.blocked_seconds += now() - begin;
    return ended;
  }
  const SaveOutcome& outcome() {
    outcome_.seconds = now() - begin_;
    outcome_.blocked_seconds += stream_.waited_seconds();
    return outcome_;
  }

 private:
  // What one rank's work throws is the save's error, on all ranks.
  void attempt(const std::function<void()>& work) {
    try {
      together(world_, work);
    } catch (const std::exception& error) {
      outcome_.error = error.what();
    }
  }

  void prepare(std::int64_t needed) {
    fs::create_directories(root_);
    std::vector<std::string> removed;
    remove_leftovers(root_, removed);
    fs::create_directories(aside_);
    const std::int64_t available = std::int64_t(std::min<std::uintmax_t>(fs::space(root_).available, INT64_MAX));
    if (available < needed) user_error("{}: {} bytes are free on this disk, the checkpoint takes {}", root_, available, needed);
  }

  bool look() {
    if (outcome_.error.empty()) {
      std::int64_t flags[2] = {work_ && !work_->done(), work_ && work_->done() && !work_->error().empty()};  // busy, failed
      world_.all_reduce(Tensor(flags, DType::i64, {2}), Reduction::max).wait();
      if (flags[0] && !flags[1]) return false;
      if (flags[1]) stream_.stop();
      if (work_) work_->wait();
      attempt([&] {
        if (work_ && !work_->error().empty()) throw UserError(work_->error());
      });
      work_.reset();
    }
    if (!outcome_.error.empty()) {
      if (world_.rank() == 0) {
        std::error_code ignored;
        fs::remove_all(aside_, ignored);
      }
      return true;
    }
    if (std::exchange(committing_, true)) return true;
    gather_shards();
    if (world_.rank() == 0) work_.emplace([this] { commit(); });
    return false;
  }

  void gather_shards() {
    constexpr std::int64_t kFields = 4;
    std::vector<std::int64_t> all(std::size_t(world_.size() * kFields));
    const std::int64_t mine[kFields] = {shard_.bytes, shard_.data_offset, shard_.elements, std::int64_t(shard_.metadata_hash)};
    std::copy(mine, mine + kFields, all.begin() + world_.rank() * kFields);
    const Tensor table(all.data(), DType::i64, {world_.size(), kFields});
    world_.all_gather(table.slice_rows(world_.rank(), world_.rank() + 1), table).wait();
    for (std::int64_t r = 0; r < world_.size(); ++r) {
      const std::int64_t* row = &all[std::size_t(r * kFields)];
      if (row[2] > 0) manifest_.shards.push_back({shard_file(r), {row[0], row[1], row[2], std::uint64_t(row[3])}});
    }
  }

  void commit() {
    for (const auto& [name, text] : texts_) {
      write_file(aside_ + "/" + name, text);
      manifest_.files.push_back(describe_file(name, text));
    }
    write_file(aside_ + "/" + kManifestFile, to_text(manifest_));
    publish_checkpoint(aside_, outcome_.path);
    remove_old_checkpoints(root_, options_.keep, options_.keep_every);
  }

  const std::string root_;
  const SaveOptions options_;
  const Comm world_;
  const double begin_;
  StateStream stream_;
  SaveOutcome outcome_;
  std::string aside_;
  std::vector<std::pair<std::string, std::string>> texts_;
  CheckpointManifest manifest_;
  ShardInfo shard_;
  bool committing_ = false;
  std::optional<Background> work_;  // last: it ends before what it works with
};

CheckpointSaver::CheckpointSaver(std::string root, const SaveOptions& options) : root_(std::move(root)), options_(options) {}
CheckpointSaver::~CheckpointSaver() = default;

void CheckpointSaver::begin(const TrainingState& state, const CheckpointParts& parts, const std::string& run_yaml) {
  AF_CHECK(!job_, "a checkpoint is still being saved");
  job_ = std::make_unique<Job>(root_, options_, state, parts, run_yaml);
}

std::optional<SaveOutcome> CheckpointSaver::poll() {
  if (!job_ || !job_->advance(false)) return std::nullopt;
  std::optional<SaveOutcome> outcome = job_->outcome();
  job_.reset();
  return outcome;
}

std::optional<SaveOutcome> CheckpointSaver::finish() {
  if (!job_) return std::nullopt;
  job_->advance(true);
  std::optional<SaveOutcome> outcome = job_->outcome();
  job_.reset();
  return outcome;
}

}  // namespace af
