// Native checkpoints, the same for any number of ranks: a folder checkpoints/{stage}-{iteration}/ with
//   state.json   where the run stands: stage, iteration, consumed samples and tokens, the data ledger, router counts
//   config.json  the model as Hugging Face describes it, with the RoPE it is trained with
//   run.yaml     the resolved configuration
//   tensors.h5   /master, /exp_avg, /exp_avg_sq: each published tensor by its name, in the accumulator type (checkpoint_tensors.h)
// Written aside and renamed; `latest` points to the newest whole one.
#pragma once
#include <string>
#include <vector>

#include "data/batch_stream.h"
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

// Returns the folder written: root/{stage}-{iteration}. Removes all but the newest `keep` (0: none), stage ends excepted.
// Collective over mesh.world, as load_checkpoint: state is rank 0's; an error on one rank is thrown on all.
std::string save_checkpoint(const std::string& root, const TrainingState& state, const CheckpointParts& parts, const std::string& run_yaml,
                            std::int64_t keep);

// Everything back, bit-equal, in this layout or another. UserError where the folder is not whole or belongs to another model.
TrainingState load_checkpoint(const Context& context, const std::string& path, const CheckpointParts& parts);
// The weights alone (init.checkpoint): this rank's slabs, read by this rank alone; call it together() (parallel/together.h).
void load_weights(const Context& context, const std::string& path, ParameterSet& parameters);

TrainingState read_state(const std::string& path);
ModelConfig read_model(const std::string& path);
// The folder that root/latest points to, or "" where there is none.
std::string latest_checkpoint(const std::string& root);

}  // namespace af
