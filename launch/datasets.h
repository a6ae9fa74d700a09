// Which token datasets a run reads, as their files say: kept with the run (metrics.jsonl, checkpoints).
#pragma once
#include <span>
#include <string>
#include <vector>

#include "data/batch_stream.h"
#include "data/json.h"
#include "data/token_dataset.h"
#include "launch/config.h"
#include "launch/json_line.h"

namespace af {

struct DatasetRecord {
  std::string name, path;
  TokenDatasetInfo info;
  std::int64_t tokens = 0, documents = 0;
};

// Each file that a stage or the validation names, once.
std::vector<DatasetRecord> dataset_records(const Config& config);

std::vector<SourceSpec> sources_of(const StageConfig& stage);  // the mix, for its stream

std::vector<JsonLine> to_json_lines(std::span<const DatasetRecord> datasets);  // for an event of metrics.jsonl
Json to_json(std::span<const DatasetRecord> datasets);                         // for a checkpoint's state.json

}  // namespace af
