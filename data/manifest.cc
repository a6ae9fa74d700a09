#include "data/manifest.h"

#include <cstdio>
#include <filesystem>

#include "core/error.h"
#include "data/file.h"

namespace af {
namespace {

constexpr std::size_t kMostNames = 8;  // in the dataset's own attribute, whose size HDF5 limits

Json to_json(const ManifestSource& source) {
  Json json;
  json.set("name", source.name);
  json.set("bytes", source.bytes);
  json.set("sha256", source.sha256);
  json.set("documents", source.documents);
  json.set("tokens", source.tokens);
  json.set("lines", source.lines);
  json.set("lines_skipped", source.lines_skipped);
  json.set("duplicates_removed", source.duplicates_removed);
  json.set("licence", source.licence.empty() ? Json() : Json(source.licence));
  if (!source.licences.empty()) {
    Json& licences = json.set("licences", Json::Object());
    for (const auto& [licence, documents] : source.licences) licences.set(licence, documents);
  }
  return json;
}

ManifestSource source_from(const JsonView& json) {
  ManifestSource source;
  source.name = json["name"].string();
  source.bytes = json["bytes"].integer();
  source.sha256 = json["sha256"].string();
  source.documents = json["documents"].integer();
  source.tokens = json["tokens"].integer();
  source.lines = json["lines"].integer();
  source.lines_skipped = json["lines_skipped"].integer();
  source.duplicates_removed = json["duplicates_removed"].integer();
  if (!json["licence"].value().is_null()) source.licence = json["licence"].string();
  if (json.has("licences")) {
    for (const Json::Member& member : json["licences"].object()) source.licences[member.first] = json["licences"][member.first].integer();
  }
  return source;
}

}  // namespace

std::string manifest_path(const std::string& dataset) { return dataset + ".manifest.json"; }

Json to_json(const Manifest& manifest) {
  Json json;
  json.set("format", "af_manifest");
  json.set("version", 1);
  json.set("program", manifest.program);
  json.set("dataset", manifest.dataset);
  json.set("documents", manifest.documents);
  json.set("tokens", manifest.tokens);
  json.set("tokenizer", manifest.tokenizer);
  json.set("tokenizer_sha256", manifest.tokenizer_sha256);
  json.set("options", manifest.options);
  if (manifest.duplicates) {
    Json& duplicates = json.set("duplicates", Json::Object());
    duplicates.set("exact", manifest.duplicates->exact);
    if (manifest.duplicates->near_threshold) {
      duplicates.set("near", manifest.duplicates->near);
      duplicates.set("near_threshold", *manifest.duplicates->near_threshold);
    }
  }
  Json& sources = json.set("sources", Json::Array());
  for (const ManifestSource& source : manifest.sources) sources.push_back(to_json(source));
  return json;
}

Manifest manifest_from(const JsonView& json) {
  Manifest manifest;
  if (json["format"].string() != "af_manifest" || json["version"].integer() != 1) user_error("{}: is no manifest of version 1", json.where());
  manifest.program = json["program"].string();
  manifest.dataset = json["dataset"].string();
  manifest.documents = json["documents"].integer();
  manifest.tokens = json["tokens"].integer();
  manifest.tokenizer = json["tokenizer"].string();
  manifest.tokenizer_sha256 = json["tokenizer_sha256"].string();
  manifest.options = json["options"].value();
  if (json.has("duplicates")) {
    const JsonView duplicates = json["duplicates"];
    manifest.duplicates.emplace();
    manifest.duplicates->exact = duplicates["exact"].integer();
    if (duplicates.has("near")) {
      manifest.duplicates->near = duplicates["near"].integer();
      manifest.duplicates->near_threshold = duplicates["near_threshold"].number();
    }
  }
  for (std::size_t i = 0; i < json["sources"].size(); ++i) manifest.sources.push_back(source_from(json["sources"][i]));
  return manifest;
}

void write_manifest(const Manifest& manifest, const std::string& path) {
  const std::string aside = path + ".tmp";
  write_file(aside, to_json(manifest).dump(2) + "\n");
  if (std::rename(aside.c_str(), path.c_str()) != 0) user_error("{}: cannot be renamed to {}", aside, path);
}

std::string source_names(const std::vector<ManifestSource>& sources) {
  std::string names;
  for (std::size_t i = 0; i < sources.size() && i < kMostNames; ++i) {
    names += (i == 0 ? "" : " ") + std::filesystem::path(sources[i].name).filename().string();
  }
  if (sources.size() > kMostNames) names += fmt::format(" and {} more", sources.size() - kMostNames);
  return names;
}

}  // namespace af
