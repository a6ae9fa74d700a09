// Writes checkpoints while training goes on. begin() takes down what is small; a thread of each rank then streams the rank's share of
// the state from the live buffers to its shard. The optimizer's next step asks before it changes anything: what is not yet written
// is copied first, into at most `staging_bytes`; when these are full, the step waits for the disk. When all shards are on the disk,
// rank 0's thread writes the manifest, renames the folder, moves `latest` and removes what is old.
//
//   CheckpointSaver saver(root, options);
//   saver.begin(...);                       at a step boundary
//   if (auto outcome = saver.poll()) ...    at each step boundary from then on
//   if (auto outcome = saver.finish()) ...  before the end, and before the model is laid out anew or loaded: waits
//
// All are collective over the world of the first begin(), and communicate between steps only. A save that fails (a full disk)
// leaves nothing behind, and its outcome says why, on every rank.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "launch/checkpoint.h"

namespace af {

struct SaveOptions {
  std::int64_t keep = 0;                       // newest checkpoints kept, stage ends besides; 0: all
  std::int64_t keep_every = 0;                 // those of every so many iterations are kept for ever; 0: none
  std::int64_t staging_bytes = 256'000'000;    // per rank
};

struct SaveOutcome {
  std::string path;       // of the checkpoint
  std::string error;      // "": it is on the disk
  std::int64_t iteration = 0;
  double seconds = 0;          // from begin() until all of it was on the disk
  double blocked_seconds = 0;  // of them, those in which this rank's training waited
};

class CheckpointSaver {
 public:
  CheckpointSaver(std::string root, const SaveOptions& options);
  ~CheckpointSaver();  // a save under way is given up
  // None may be under way. `parts` may go, but model and optimizer must stay until the outcome is there.
  void begin(const TrainingState& state, const CheckpointParts& parts, const std::string& run_yaml);
  bool under_way() const { return job_ != nullptr; }
  std::optional<SaveOutcome> poll();
  std::optional<SaveOutcome> finish();

 private:
  class Job;
  std::string root_;
  SaveOptions options_;
  std::unique_ptr<Job> job_;
};

// Removes folders that a save left behind when it was killed, and checkpoints that SaveOptions do not keep, but never the one that `latest`
// points to; returns their names. Nobody may be saving.
std::vector<std::string> remove_old_checkpoints(const std::string& root, std::int64_t keep, std::int64_t keep_every);
void remove_checkpoint(const std::string& path);
// Out of the way of those that a run goes on from, into the folder `aside` beside it; returns where it is now.
std::string set_aside_checkpoint(const std::string& path);
// What was replaced when a save was killed, on file systems that cannot do it at once, gets its name again.
void restore_replaced(const std::string& root);
// root/latest points to root/name from now on: replaced in one step, on the disk when it returns.
void point_latest(const std::string& root, const std::string& name);
// Makes `aside`, a folder whose files are on the disk, the checkpoint `path` in its folder, and `latest` point to it.
void publish_checkpoint(const std::string& aside, const std::string& path);

}  // namespace af
