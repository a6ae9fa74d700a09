// manifest.json of a checkpoint, written last: what belongs to it, with sizes and hashes. Nothing of a checkpoint is believed
// before its hash was found to be the manifest's; the manifest has its own.
#pragma once
#include <string>
#include <vector>

#include "launch/checkpoint_shard.h"

namespace af {

struct CheckpointManifest {
  struct File {
    std::string name;
    std::int64_t bytes;
    std::uint64_t hash;
  };
  struct Shard {
    std::string name;
    ShardInfo info;
  };
  std::string layout;           // that wrote it: "4 ranks: TP 2, ..."; "": none did (an import)
  DType dtype = DType::f32;     // of all states
  int states = 3;               // master, exp_avg, exp_avg_sq: the first so many; 1: weights alone
  std::vector<File> files;      // state.json, config.json, run.yaml
  std::vector<Shard> shards;

  std::int64_t elements() const;  // of the model
};

inline constexpr char kManifestFile[] = "manifest.json";
std::string to_text(const CheckpointManifest& manifest);
// Whether a folder is a checkpoint, or what is left of one.
bool holds_checkpoint(const std::string& path);
// Of the checkpoint in folder `path`. UserError where there is none, DamagedCheckpoint where it is not whole or cannot be read.
CheckpointManifest read_manifest(const std::string& path);
CheckpointManifest::File describe_file(const std::string& name, const std::string& contents);
// Contents of a file of the checkpoint; DamagedCheckpoint where they are not those of the manifest.
std::string read_listed_file(const std::string& path, const CheckpointManifest& manifest, const std::string& name);

}  // namespace af
