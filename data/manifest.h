// X.h5.manifest.json beside a token dataset X.h5: from which sources, by which tokenizer and with which options it was made.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/json.h"

namespace af {

struct ManifestSource {
  std::string name;  // as the user gave it
  std::int64_t bytes = 0;
  std::string sha256;
  std::int64_t documents = 0, tokens = 0;  // in the dataset
  std::int64_t lines = 0, lines_skipped = 0, duplicates_removed = 0;
  std::string licence;                           // of the whole source; "": not known
  std::map<std::string, std::int64_t> licences;  // documents by the licence that their lines name
};

struct ManifestDuplicates {
  std::int64_t exact = 0, near = 0;
  std::optional<double> near_threshold;  // where near duplicates were looked for
};

struct Manifest {
  std::string program;  // "af_data tokenize 0.1.0"
  std::string dataset;  // its file's name, without folder
  std::int64_t documents = 0, tokens = 0;
  std::string tokenizer, tokenizer_sha256;
  Json options;  // name: value
  std::optional<ManifestDuplicates> duplicates;
  std::vector<ManifestSource> sources;
};

std::string manifest_path(const std::string& dataset);
Json to_json(const Manifest& manifest);
Manifest manifest_from(const JsonView& json);
void write_manifest(const Manifest& manifest, const std::string& path);  // aside, then renamed

// The names of the sources in a line; of many the first, and how many more.
std::string source_names(const std::vector<ManifestSource>& sources);

}  // namespace af
