#include "launch/checkpoint_reader.h"

#include <algorithm>

namespace af {
namespace {

std::string file_of(const std::string& path, const CheckpointManifest::Shard& shard) { return path + "/" + shard.name; }

}  // namespace

CheckpointReader::CheckpointReader(const std::string& path) : path_(path), manifest_(read_manifest(path)) {
  for (const CheckpointManifest::Shard& shard : manifest_.shards) {
    damaged_if_unreadable([&] { shards_.emplace_back(file_of(path, shard), manifest_.dtype, manifest_.states, shard.info); });
    const ShardTable& table = shards_.back().table();
    for (std::size_t i = 0; i < table.pieces.size(); ++i)
      places_[table.tensors[std::size_t(table.pieces[i].tensor)].name].push_back({shards_.size() - 1, i});
  }
}

const std::vector<CheckpointReader::Place>& CheckpointReader::places_of(const std::string& tensor) const {
  const auto found = places_.find(tensor);
  if (found == places_.end()) user_error("{}: tensor {} is missing; this checkpoint belongs to another model", path_, tensor);
  return found->second;
}

const Shape& CheckpointReader::shape(const std::string& tensor) const {
  const Place& place = places_of(tensor).front();
  const ShardTable& table = shards_[place.shard].table();
  return table.tensors[std::size_t(table.pieces[place.piece].tensor)].shape;
}

void CheckpointReader::for_each_tensor(const std::function<void(const ShardTensor&)>& f) const {
  for (std::size_t s = 0; s < shards_.size(); ++s)
    for (std::size_t i = 0; i < shards_[s].table().pieces.size(); ++i) {
      const ShardTensor& tensor = shards_[s].table().tensors[std::size_t(shards_[s].table().pieces[i].tensor)];
      const Place& first = places_.at(tensor.name).front();
      if (first.shard == s && first.piece == i) f(tensor);
    }
}

void CheckpointReader::read(OptimizerState state, std::span<const Want> wants) {
  if (int(state) >= manifest_.states) user_error("{}: has weights alone; begin from it with init: {{checkpoint: {}}}", path_, path_);
  struct Part {
    std::size_t shard;
    std::int64_t first;  // element of the shard's data
    Rectangle where;
    const ShardTable::Piece* piece;
    const Want* want;
  };
  std::vector<Part> parts;
  for (const Want& want : wants) {
    std::int64_t found = 0;
    for (const Place& place : places_of(*want.tensor)) {
      const ShardTable::Piece& piece = shards_[place.shard].table().pieces[place.piece];
      const Rectangle part = intersection(piece.where, want.where);
      if (part.numel() == 0) continue;
      found += part.numel();
      parts.push_back({place.shard, piece.offset + (part.row - piece.where.row) * piece.where.cols + part.col - piece.where.col, part, &piece, &want});
    }
    if (found != want.where.numel()) damaged("{}: {} of {} elements of a part of {} are there", path_, found, want.where.numel(), *want.tensor);
  }
  // As they stand in the files.
  std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return std::pair(a.shard, a.first) < std::pair(b.shard, b.first); });
  const std::int64_t size = std::int64_t(size_of(dtype()));
  for (const Part& part : parts) {
    const Rectangle &to = part.want->where, &where = part.where;
    char* out = static_cast<char*>(part.want->out) + ((where.row - to.row) * part.want->pitch + where.col - to.col) * size;
    const bool dense = where.cols == part.piece->where.cols && where.cols == part.want->pitch;
    const std::int64_t lines = dense ? 1 : where.rows, per_line = dense ? where.numel() : where.cols;
    for (std::int64_t i = 0; i < lines; ++i)
      shards_[part.shard].read(int(state), part.first + i * part.piece->where.cols, per_line, out + i * part.want->pitch * size);
  }
}

std::int64_t CheckpointReader::bytes_read() const {
  std::int64_t sum = 0;
  for (const ShardReader& shard : shards_) sum += shard.bytes_read();
  return sum;
}

void CheckpointReader::read_rows(OptimizerState state, const std::string& tensor, std::int64_t row_begin, const Tensor& out) {
  AF_CHECK(out.dtype == dtype(), "{}: {} read as {}", path_, name_of(dtype()), name_of(out.dtype));
  const Want want{&tensor, {row_begin, out.rows(), 0, out.numel() / out.rows()}, out.data, out.numel() / out.rows()};
  read(state, {&want, 1});
}

std::vector<std::string> verify_checkpoint(const std::string& path) {
  std::vector<std::string> errors;
  const auto attempt = [&](const auto& work) {
    try {
      work();
      return true;
    } catch (const UserError& error) {
      errors.push_back(error.what());
      return false;
    }
  };
  CheckpointManifest manifest;
  if (!attempt([&] { manifest = read_manifest(path); })) return errors;
  for (const CheckpointManifest::File& file : manifest.files) attempt([&] { read_listed_file(path, manifest, file.name); });
  for (const CheckpointManifest::Shard& shard : manifest.shards)
    attempt([&] {
      ShardReader reader(file_of(path, shard), manifest.dtype, manifest.states, shard.info);
      for (int s = 0; s < manifest.states; ++s)
        for (std::int64_t block = 0; block < reader.blocks(); ++block) attempt([&] { reader.check_block(s, block); });
    });
  if (!errors.empty()) return errors;
  // Each element once.
  std::unordered_map<std::string, std::int64_t> elements;
  CheckpointReader reader(path);
  for (const CheckpointManifest::Shard& shard : manifest.shards) {
    const ShardReader table(file_of(path, shard), manifest.dtype, manifest.states, shard.info);
    for (const ShardTable::Piece& piece : table.table().pieces) elements[table.table().tensors[std::size_t(piece.tensor)].name] += piece.where.numel();
  }
  reader.for_each_tensor([&](const ShardTensor& tensor) {
    if (elements[tensor.name] != tensor.shape.numel())
      errors.push_back(fmt::format("{}: {} of {} elements of {} are there", path, elements[tensor.name], tensor.shape.numel(), tensor.name));
  });
  return errors;
}

}  // namespace af
