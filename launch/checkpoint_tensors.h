// tensors.h5 of a checkpoint: the groups master, exp_avg and exp_avg_sq, in each the published tensors by their names in the
// accumulator type. The file does not tell how many ranks wrote it, and any number reads it.
#pragma once
#include <string>

#include "models/config.h"
#include "parallel/optimizer.h"

namespace af {

// Rank 0 writes, the others send it what they hold, block by block: kCheckpointBlockBytes of the file are in its memory, and
// as much on the way. Collective over world; an error on rank 0 (a full disk) reaches every rank as the same error.
inline constexpr std::int64_t kCheckpointBlockBytes = 32 << 20;
void write_tensors(const std::string& path, const ModelConfig& model, const ParameterSet& set, const Optimizer& optimizer, const Comm& world,
                   std::int64_t block_bytes = kCheckpointBlockBytes);

// What this rank's share needs, into the optimizer's state. UserError where the file belongs to another model or precision.
void read_tensors(const std::string& path, const ParameterSet& set, Optimizer& optimizer);
// The master weights alone, into the values of the set's slabs.
void read_values(const Context& context, const std::string& path, ParameterSet& set);

}  // namespace af
