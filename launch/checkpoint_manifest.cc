#include "launch/checkpoint_manifest.h"

#include <charconv>
#include <filesystem>

#include <fmt/format.h>

#include "data/file.h"
#include "data/hash.h"
#include "data/json.h"
#include "launch/arguments.h"

namespace af {
namespace {

namespace fs = std::filesystem;
constexpr char kFormat[] = "af_checkpoint", kHash[] = "manifest_xxh3";
constexpr std::int64_t kManifestVersion = 2;

std::string hex(std::uint64_t hash) { return fmt::format("{:016x}", hash); }

std::uint64_t hash_of(const JsonView& json) {
  const std::string& text = json.string();
  std::uint64_t hash = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), hash, 16).ptr != text.data() + text.size()) damaged("{}: \"{}\" is no hash", json.where(), text);
  return hash;
}

CheckpointManifest manifest_of(const JsonView& j) {
  CheckpointManifest manifest;
  manifest.layout = j["layout"].string();
  manifest.dtype = j["dtype"].string() == name_of(DType::f64) ? DType::f64 : DType::f32;
  manifest.states = int(j["states"].size());
  if (manifest.states != 1 && manifest.states != 3) damaged("{}: {} states", j.where(), manifest.states);
  for (std::size_t i = 0; i < j["files"].size(); ++i) {
    const JsonView file = j["files"][i];
    manifest.files.push_back({file["name"].string(), file["bytes"].integer(), hash_of(file["xxh3"])});
  }
  for (std::size_t i = 0; i < j["shards"].size(); ++i) {
    const JsonView shard = j["shards"][i];
    manifest.shards.push_back({shard["name"].string(),
                               {shard["bytes"].integer(), shard["data_offset"].integer(), shard["elements"].integer(), hash_of(shard["metadata_xxh3"])}});
  }
  return manifest;
}

}  // namespace

std::int64_t CheckpointManifest::elements() const {
  std::int64_t sum = 0;
  for (const Shard& shard : shards) sum += shard.info.elements;
  return sum;
}

CheckpointManifest::File describe_file(const std::string& name, const std::string& contents) { return {name, std::int64_t(contents.size()), hash64(contents)}; }

std::string to_text(const CheckpointManifest& manifest) {
  Json j, states = Json::Array{}, files = Json::Array{}, shards = Json::Array{};
  j.set("format", kFormat);
  j.set("version", kManifestVersion);
  j.set("program", kVersion);
  j.set("layout", manifest.layout);
  j.set("dtype", name_of(manifest.dtype));
  for (int s = 0; s < manifest.states; ++s) states.push_back(kStateNames[s]);
  for (const CheckpointManifest::File& file : manifest.files) files.push_back(Json::Object{{"name", file.name}, {"bytes", file.bytes}, {"xxh3", hex(file.hash)}});
  for (const auto& [name, info] : manifest.shards)
    shards.push_back(Json::Object{{"name", name}, {"bytes", info.bytes}, {"data_offset", info.data_offset}, {"elements", info.elements},
                                  {"metadata_xxh3", hex(info.metadata_hash)}});
  j.set("states", states);
  j.set("files", files);
  j.set("shards", shards);
  j.set(kHash, hex(hash64(j.dump(2))));
  return j.dump(2) + "\n";
}

bool holds_checkpoint(const std::string& path) {
  std::error_code no;
  for (const std::string& name : {std::string(kManifestFile), std::string("state.json"), shard_file(0)})
    if (fs::exists(path + "/" + name, no)) return true;
  return false;
}

CheckpointManifest read_manifest(const std::string& path) {
  const std::string file = path + "/" + kManifestFile;
  if (!holds_checkpoint(path)) user_error("{}: no checkpoint here ({} is missing)", path, kManifestFile);
  if (std::error_code no; !fs::exists(file, no)) damaged("{}: is missing", file);
  try {
    const std::string text = read_file(file);
    const Json json = Json::parse(text, file);
    const JsonView view(json, file);
    Json::Object members = json.object(file);
    if (members.empty() || members.back().first != kHash) damaged("{}: is not whole", file);
    const std::uint64_t hash = hash_of(view[kHash]);
    members.pop_back();
    if (hash64(Json(members).dump(2)) != hash) damaged("{}: is damaged (its hash is another)", file);
    if (view["format"].string() != kFormat || view["version"].integer() != kManifestVersion)
      user_error("{}: not a checkpoint of this program (format {}, version {})", file, kFormat, kManifestVersion);
    return manifest_of(view);
  } catch (const DamagedCheckpoint&) {
    throw;
  } catch (const UserError& error) {
    throw DamagedCheckpoint(error.what());  // not readable, no JSON, or not ours
  }
}

std::string read_listed_file(const std::string& path, const CheckpointManifest& manifest, const std::string& name) {
  for (const CheckpointManifest::File& file : manifest.files) {
    if (file.name != name) continue;
    const std::string where = path + "/" + name;
    if (std::error_code no; !fs::exists(where, no)) damaged("{}: is missing", where);
    std::string contents;
    damaged_if_unreadable([&] { contents = read_file(where); });
    if (std::int64_t(contents.size()) != file.bytes || hash64(contents) != file.hash) damaged("{}: is damaged (its hash is another)", where);
    return contents;
  }
  damaged("{}: the manifest does not list {}", path, name);
}

}  // namespace af
