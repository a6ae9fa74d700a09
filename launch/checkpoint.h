// Native checkpoints, the same for any number of ranks: a folder checkpoints/{stage}-{iteration}/ with
//   state.json      where the run stands: stage, iteration, consumed samples and tokens, the data ledger, router counts
//   config.json     the model as Hugging Face describes it, with the RoPE it is trained with
//   run.yaml        the resolved configuration
//   shard-00003.h5  what rank 3 wrote: rectangles of published tensors and their optimizer state (checkpoint_shard.h)
//   stage_finished  only at a stage's end: a line of JSON. Whoever hands the stage over to another cluster waits for it (examples/slurm)
//   manifest.json   written last: hashes of all the others (checkpoint_manifest.h)
// Each element is written by one rank; any layout reads any other's. `latest` points to the newest one on the disk.
// This file reads them; checkpoint_saver.h writes them.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "data/batch_stream.h"
#include "launch/checkpoint_shard.h"
#include "launch/loss_spike.h"
#include "models/config.h"
#include "parallel/balance.h"
#include "parallel/mesh.h"
#include "parallel/optimizer.h"

namespace af {

struct TrainingState {
  std::int64_t stage = 0;            // index of the stage under way
  std::string stage_name;
  std::int64_t stage_iteration = 0;  // iterations done in it
  bool stage_finished = false;
  std::int64_t iteration = 0, consumed_samples = 0, consumed_tokens = 0;  // across stages; tokens with masked ones
  std::int64_t skipped = 0;          // steps skipped for gradients that were not finite
  StreamState stream;
  std::vector<double> recent_losses;  // of the stage, as many as runtime.loss_spike_window; none where nobody looks for spikes
  std::vector<LossSpike> spikes;      // that the run went back behind
  std::string tokenizer_sha256;  // of the datasets; "": weights that were imported
  Json datasets;                 // what the run read (launch/datasets.h)
};

// What a checkpoint is made of, beside the state.
struct CheckpointParts {
  const ModelConfig& model;
  ParameterSet& parameters;
  Optimizer& optimizer;
  std::vector<RouterStatistics>& router;  // one per layer of the model; without counts where this rank does not hold the layer
  Mesh mesh{};
};

// together() (parallel/together.h) for what reads a checkpoint: DamagedCheckpoint on every rank where any threw one.
void together_or_damaged(const Comm& world, const std::function<void()>& work);

// state.json of a run as it stands. Collective over mesh.world.
std::string state_text(const TrainingState& state, const CheckpointParts& parts);

// Everything back, bit-equal, in this layout or another. UserError where it belongs to another model, DamagedCheckpoint
// (checkpoint_shard.h) on every rank where any found it not whole: then the state is undefined until another is loaded.
// Collective over mesh.world; no save may be under way.
TrainingState load_checkpoint(const Context& context, const std::string& path, const CheckpointParts& parts);
// The weights alone (init.checkpoint): this rank's slabs, read by this rank alone; call it together() (parallel/together.h).
void load_weights(const Context& context, const std::string& path, ParameterSet& parameters);

TrainingState read_state(const std::string& path);
ModelConfig read_model(const std::string& path);
// All of them, the newest (most iterations) first; those too of which a part is missing, be it the manifest: read_manifest() says so.
std::vector<std::string> checkpoints_in(const std::string& root);
std::int64_t iteration_of(const std::string& path);  // as its name says; -1: it has another name than a checkpoint's
// The folder that root/latest points to (or is: a copy that followed links), or "" where there is none.
std::string latest_checkpoint(const std::string& root);
// `path` itself, or the latest in it where it holds checkpoints, or where it is a run's directory; the newest where no latest says
// which (tools that copy may leave links out). UserError where there is none.
std::string checkpoint_folder(const std::string& path);

inline constexpr char kStageFinishedFile[] = "stage_finished";
std::string stage_finished_text(const TrainingState& state);

}  // namespace af
