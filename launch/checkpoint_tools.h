// What af_checkpoint does with checkpoints. All of it streams: a few megabytes of tensors are in memory, however large they are.
#pragma once
#include <string>
#include <vector>

#include "models/config.h"

namespace af {

void describe_model(const ModelConfig& config);  // to the standard output, as the next two
// What it is of, who wrote it, how large it is, where the data stand; with its tensors if asked for.
void inspect_checkpoint(const std::string& path, bool tensors);
// Largest |difference| of each tensor in each state that both have; true where there is none at all.
bool diff_checkpoints(const std::string& a, const std::string& b);

// The mean of the master weights, taken in fp64, as a checkpoint of weights alone in the folder `to`.
void average_checkpoints(const std::vector<std::string>& from, const std::string& to);
// A Hugging Face folder as one, root/import-0, to which root/latest points. Returns its folder.
std::string import_checkpoint(const std::string& hf_folder, const std::string& root);
inline constexpr char kSourceFile[] = "hf_source";  // in it: the folder it came from

}  // namespace af
