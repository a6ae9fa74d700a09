#include "launch/datasets.h"

#include <set>

namespace af {

std::vector<DatasetRecord> dataset_records(const Config& config) {
  std::vector<DatasetRecord> out;
  std::set<std::string> seen;
  const auto add = [&](const DataSource& source) {
    if (!seen.insert(source.path).second) return;
    const H5File file = H5File::open(source.path);
    out.push_back({source.name, source.path, read_token_dataset_info(source.path), file.dataset("/tokens").rows(),
                   file.dataset("/document_offsets").rows() - 1});
  };
  for (const StageConfig& stage : config.stages)
    for (const DataSource& source : stage.data) add(source);
  for (const DataSource& source : config.validation.data) add(source);
  return out;
}

std::vector<SourceSpec> sources_of(const StageConfig& stage) {
  std::vector<SourceSpec> sources;
  for (const DataSource& source : stage.data) sources.push_back({source.path, source.name, source.weight});
  return sources;
}

std::vector<JsonLine> to_json_lines(std::span<const DatasetRecord> datasets) {
  std::vector<JsonLine> out;
  for (const DatasetRecord& dataset : datasets) {
    const TokenDatasetInfo& info = dataset.info;
    JsonLine line;
    line.add("name", dataset.name).add("path", dataset.path).add("source", info.source).add("tokens", dataset.tokens);
    line.add("documents", dataset.documents).add("vocab_size", info.vocab_size).add("eod_token_id", std::int64_t(info.eod_token_id));
    out.push_back(line.add("tokenizer_sha256", info.tokenizer_sha256));
  }
  return out;
}

Json to_json(std::span<const DatasetRecord> datasets) {
  Json out = Json::Array{};
  for (const JsonLine& line : to_json_lines(datasets)) out.push_back(Json::parse(line.text(), "dataset"));
  return out;
}

}  // namespace af
