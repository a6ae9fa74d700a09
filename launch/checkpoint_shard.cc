#include "launch/checkpoint_shard.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>

#include "data/crc32c.h"
#include "data/hash.h"
#include "data/hdf5_file.h"

namespace af {
namespace {

constexpr char kFormat[] = "af_checkpoint_shard";
constexpr std::int64_t kVersion = 2;

H5Type h5_type(DType dtype) { return dtype == DType::f64 ? H5Type::f64 : H5Type::f32; }

// Everything before and behind the data.
std::uint64_t hash_of_metadata(const RawFile& file, std::int64_t size, std::int64_t data_offset, std::int64_t data_bytes) {
  std::uint64_t hash = 0;
  std::string bytes;
  for (auto [begin, end] : {std::pair(std::int64_t(0), data_offset), std::pair(data_offset + data_bytes, size)}) {
    bytes.resize(std::size_t(end - begin));
    file.read(begin, end - begin, bytes.data());
    hash = hash64(bytes, hash);
  }
  return hash;
}

template <class T>
std::vector<T> read_all(const H5File& file, const char* name, H5Type type, std::size_t rank) {
  const H5Dataset dataset = file.dataset(name);
  if (dataset.type() != type || dataset.shape().size() != rank) damaged("{}: is not as this program writes it", dataset.where());
  std::int64_t elements = 1;
  for (std::int64_t n : dataset.shape()) elements *= n;
  std::vector<T> out(static_cast<std::size_t>(elements));
  dataset.read(std::vector<std::int64_t>(rank, 0), dataset.shape(), type, out.data());
  return out;
}

RawFile open_shard(const std::string& path, const ShardInfo& info, std::int64_t data_bytes) {
  if (std::error_code no; !std::filesystem::exists(path, no)) damaged("{}: is missing", path);
  RawFile file(path, RawFile::Access::read);
  if (file.size() != info.bytes) damaged("{}: has {} bytes, the manifest says {}", path, file.size(), info.bytes);
  if (info.data_offset < 0 || data_bytes < 0 || info.data_offset + data_bytes > info.bytes) damaged("{}: the manifest's sizes do not fit", path);
  if (hash_of_metadata(file, info.bytes, info.data_offset, data_bytes) != info.metadata_hash)
    damaged("{}: its table of tensors or its checksums are damaged (the hash is another)", path);
  return file;
}

}  // namespace

std::string shard_file(std::int64_t rank) { return fmt::format("shard-{:05}.h5", rank); }

void ShardTable::add(const std::string& name, const Shape& shape, const Rectangle& where) {
  if (tensors.empty() || tensors.back().name != name) tensors.push_back({name, shape});
  pieces.push_back({std::int64_t(tensors.size()) - 1, where, elements});
  elements += where.numel();
}

const ShardTensor& ShardTable::tensor_at(std::int64_t element) const {
  const auto after = std::upper_bound(pieces.begin(), pieces.end(), element, [](std::int64_t e, const Piece& piece) { return e < piece.offset; });
  return tensors[std::size_t(std::prev(after)->tensor)];
}

std::int64_t most_shard_bytes(const ShardTable& table, DType dtype, int states) {
  if (table.elements == 0) return 0;
  std::int64_t names = 0;
  for (const ShardTensor& tensor : table.tensors) names += std::int64_t(tensor.name.size()) + 1;
  const std::int64_t numbers = 3 * std::int64_t(table.tensors.size()) + 6 * std::int64_t(table.pieces.size());
  const std::int64_t blocks = (table.elements + kBlockElements - 1) / kBlockElements;
  return states * (table.elements * std::int64_t(size_of(dtype)) + 4 * blocks) + names + 8 * numbers + (1 << 16);  // HDF5's own last
}

ShardWriter::ShardWriter(const std::string& path, DType dtype, int states, const ShardTable& table)
    : elements_(table.elements), element_size_(std::int64_t(size_of(dtype))), states_(std::size_t(states)) {
  AF_CHECK(table.elements > 0, "{}: a shard of nothing", path);
  std::string names;
  std::vector<std::int64_t> shapes, pieces;
  for (const ShardTensor& tensor : table.tensors) {
    names += tensor.name + "\n";
    shapes.insert(shapes.end(), {tensor.shape.rank, tensor.shape[0], tensor.shape.rank > 1 ? tensor.shape[1] : 1});
  }
  for (const ShardTable::Piece& p : table.pieces) pieces.insert(pieces.end(), {p.tensor, p.where.row, p.where.rows, p.where.col, p.where.cols, p.offset});
  const std::int64_t blocks = (elements_ + kBlockElements - 1) / kBlockElements;
  // Before the library meets the file: it never gets over a disk that is full.
  RawFile::create(path).reserve(most_shard_bytes(table, dtype, states));
  {
    H5File file = H5File::create(path);
    file.set_attribute("/", "format", std::string(kFormat));
    file.set_attribute("/", "version", kVersion);
    const auto put = [&](const char* name, H5Type type, const std::vector<std::int64_t>& shape, const void* data) {
      H5Dataset dataset = file.create_dataset(name, type, shape);
      dataset.write(std::vector<std::int64_t>(shape.size(), 0), shape, type, data);
    };
    put("names", H5Type::u8, {std::int64_t(names.size())}, names.data());
    put("shapes", H5Type::i64, {std::int64_t(shapes.size()) / 3, 3}, shapes.data());
    put("pieces", H5Type::i64, {std::int64_t(pieces.size()) / 6, 6}, pieces.data());
    checksums_offset_ = file.create_dataset("checksums", H5Type::u32, {states, blocks}, {.placed = true}).file_offset();
    data_offset_ = file.create_dataset("data", h5_type(dtype), {states, elements_}, {.placed = true}).file_offset();
    file.close();
  }
  file_.emplace(path, RawFile::Access::update);
  file_->reserve(file_->size());
}

void ShardWriter::close_block(Progress& progress) {
  progress.checksums.push_back(progress.crc);
  progress.crc = 0;
}

void ShardWriter::append(int state, const void* data, std::int64_t count) {
  // A checksum and then the write of as much as stays in the core's cache meanwhile: the memory is read once, not twice.
  constexpr std::int64_t kPiece = 1 << 15;
  static_assert(kBlockElements % kPiece == 0);
  Progress& progress = states_[std::size_t(state)];
  AF_CHECK(progress.at + count <= elements_, "{}: {} elements of {}", file_->path(), progress.at + count, elements_);
  const std::int64_t begin = data_offset_ + (state * elements_ + progress.at) * element_size_, bytes = count * element_size_;
  std::int64_t offset = begin;
  for (const char* from = static_cast<const char*>(data); count > 0;) {
    const std::int64_t n = std::min(count, kPiece - progress.at % kPiece), size = n * element_size_;
    progress.crc = crc32c({from, std::size_t(size)}, progress.crc);
    file_->write(offset, size, from);
    progress.at += n, from += size, offset += size, count -= n;
    if (progress.at % kBlockElements == 0) close_block(progress);
  }
  file_->start_sync(begin, bytes);
}

ShardInfo ShardWriter::finish() {
  std::vector<std::uint32_t> checksums;
  for (Progress& progress : states_) {
    AF_CHECK(progress.at == elements_, "{}: {} of {} elements were written", file_->path(), progress.at, elements_);
    if (progress.at % kBlockElements != 0) close_block(progress);
    checksums.insert(checksums.end(), progress.checksums.begin(), progress.checksums.end());
  }
  file_->write(checksums_offset_, std::int64_t(4 * checksums.size()), checksums.data());
  file_->sync();
  ShardInfo info{file_->size(), data_offset_, elements_, 0};
  info.metadata_hash = hash_of_metadata(*file_, info.bytes, data_offset_, std::int64_t(states_.size()) * elements_ * element_size_);
  return info;
}

ShardReader::ShardReader(const std::string& path, DType dtype, int states, const ShardInfo& info)
    : file_(open_shard(path, info, states * info.elements * std::int64_t(size_of(dtype)))), element_size_(std::int64_t(size_of(dtype))),
      data_offset_(info.data_offset) {
  const H5File file = H5File::open(path);
  if (file.string_attribute("/", "format") != kFormat || file.integer_attribute("/", "version") != kVersion)
    user_error("{}: is no shard of a checkpoint of version {}", path, kVersion);
  const std::vector<char> names = read_all<char>(file, "names", H5Type::u8, 1);
  const std::vector<std::int64_t> shapes = read_all<std::int64_t>(file, "shapes", H5Type::i64, 2), pieces = read_all<std::int64_t>(file, "pieces", H5Type::i64, 2);
  checksums_ = read_all<std::uint32_t>(file, "checksums", H5Type::u32, 2);
  for (auto name = names.begin(); name != names.end();) {
    const auto end = std::find(name, names.end(), '\n');
    const std::size_t at = 3 * table_.tensors.size();
    if (end == names.end() || at + 3 > shapes.size() || shapes[at] < 1 || shapes[at] > 2) damaged("{}: its table of tensors is not whole", path);
    table_.tensors.push_back({std::string(name, end), shapes[at] > 1 ? Shape{shapes[at + 1], shapes[at + 2]} : Shape{shapes[at + 1]}});
    name = end + 1;
  }
  for (std::size_t i = 0; i + 6 <= pieces.size(); i += 6) {
    const std::int64_t* p = &pieces[i];
    const Rectangle where{p[1], p[2], p[3], p[4]};
    if (p[0] < 0 || p[0] >= std::int64_t(table_.tensors.size()) || p[5] != table_.elements || where.numel() <= 0) damaged("{}: its table of pieces is not whole", path);
    table_.pieces.push_back({p[0], where, p[5]});
    table_.elements += where.numel();
  }
  if (table_.elements != info.elements || std::int64_t(checksums_.size()) != states * blocks()) damaged("{}: its tables do not fit its data", path);
}

void ShardReader::read_block(int state, std::int64_t block, char* out) {
  const std::int64_t begin = block * kBlockElements, bytes = block_size(block) * element_size_;
  bytes_read_ += bytes;
  damaged_if_unreadable([&] { file_.read(data_offset_ + (state * table_.elements + begin) * element_size_, bytes, out); });
  if (crc32c({out, std::size_t(bytes)}) == checksums_[std::size_t(state * blocks() + block)]) return;
  const std::string first = table_.tensor_at(begin).name, last = table_.tensor_at(begin + block_size(block) - 1).name;
  damaged("{}: {} of {} is damaged (a checksum is wrong)", path(), kStateNames[state], first == last ? first : first + " to " + last);
}

void ShardReader::read(int state, std::int64_t begin, std::int64_t count, void* out) {
  for (char* to = static_cast<char*>(out); count > 0;) {
    const std::int64_t block = begin / kBlockElements, within = begin % kBlockElements, n = std::min(count, block_size(block) - within);
    if (n == block_size(block)) {
      read_block(state, block, to);
    } else {
      if (kept_state_ != state || kept_block_ != block) {
        kept_block_ = -1;
        kept_.resize(std::size_t(kBlockElements * element_size_));
        read_block(state, block, kept_.data());
        kept_state_ = state, kept_block_ = block;
      }
      std::memcpy(to, kept_.data() + within * element_size_, std::size_t(n * element_size_));
    }
    begin += n, to += n * element_size_, count -= n;
  }
}

void ShardReader::check_block(int state, std::int64_t block) {
  kept_block_ = -1;
  kept_.resize(std::size_t(kBlockElements * element_size_));
  read_block(state, block, kept_.data());
}

}  // namespace af
