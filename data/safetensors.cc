#include "data/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "core/error.h"
#include "data/json.h"

namespace af {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMaxHeader = 100'000'000;  // the format's own bound
constexpr char kIndexName[] = "model.safetensors.index.json";

struct TypeSize {
  const char* name;
  std::size_t size;
};
constexpr TypeSize kTypes[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},
                               {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4},     {"F64", 8},     {"I64", 8}, {"U64", 8}};

// Bytes of a tensor, or -1 where the product does not fit.
std::int64_t size_in_bytes(const std::vector<std::int64_t>& shape, std::size_t element) {
  std::int64_t bytes = std::int64_t(element);
  for (const std::int64_t dim : shape)
    if (__builtin_mul_overflow(bytes, dim, &bytes)) return -1;
  return bytes;
}

void pread_all(int fd, void* out, std::int64_t size, std::int64_t offset, const std::string& path) {
  for (char* to = static_cast<char*>(out); size > 0;) {
    const ssize_t n = ::pread(fd, to, std::size_t(size), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw InternalError(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
    if (n == 0) user_error("{}: ends at byte {}, {} more were expected: it was cut while in use", path, offset, size);
    to += n, offset += n, size -= n;
  }
}

void pwrite_all(int fd, const void* data, std::int64_t size, std::int64_t offset, const std::string& path) {
  for (const char* from = static_cast<const char*>(data); size > 0;) {
    const ssize_t n = ::pwrite(fd, from, std::size_t(size), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw InternalError(fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
    from += n, offset += n, size -= n;
  }
}

SafetensorsInfo read_info(const std::string& name, const JsonView& view) {
  SafetensorsInfo info;
  info.name = name;
  info.dtype = view["dtype"].string();
  const std::size_t element = safetensors_size_of(info.dtype);
  if (element == 0) user_error("{}: unknown dtype \"{}\"", view.where(), info.dtype);
  const JsonView shape = view["shape"];
  for (std::size_t i = 0; i < shape.size(); i++) {
    info.shape.push_back(shape[i].integer());
    if (info.shape.back() < 0) user_error("{}: a dimension cannot be {}", shape[i].where(), info.shape.back());
  }
  const JsonView offsets = view["data_offsets"];
  if (offsets.size() != 2) user_error("{}: expected [begin, end], found {} elements", offsets.where(), offsets.size());
  info.begin = offsets[0].integer();
  info.end = offsets[1].integer();
  if (info.begin < 0 || info.begin > info.end) user_error("{}: [{}, {}] is no range", offsets.where(), info.begin, info.end);
  const std::int64_t bytes = size_in_bytes(info.shape, element);
  if (bytes != info.end - info.begin) {
    user_error("{}: shape {} of {} needs {} bytes, data_offsets hold {}", view.where(), info.shape_text(), info.dtype,
               bytes < 0 ? "more than 2^63" : std::to_string(bytes), info.end - info.begin);
  }
  return info;
}

}  // namespace

std::size_t safetensors_size_of(const std::string& dtype) {
  for (const TypeSize& type : kTypes)
    if (dtype == type.name) return type.size;
  return 0;
}

std::string SafetensorsInfo::shape_text() const {
  std::string out = "[";
  for (const std::int64_t dim : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(dim);
  return out + "]";
}

std::int64_t SafetensorsInfo::numel() const { return bytes() / std::int64_t(safetensors_size_of(dtype)); }

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) user_error("{}: cannot be opened: {}", path, std::strerror(errno));
  try {
    read_header();
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      data_begin_(other.data_begin_),
      tensors_(std::move(other.tensors_)),
      index_(std::move(other.index_)),
      metadata_(std::move(other.metadata_)) {}

SafetensorsFile::~SafetensorsFile() {
  if (fd_ >= 0) ::close(fd_);
}

// u64 little-endian header length, header, data. The data ranges must cover the rest of the file without gap or overlap.
void SafetensorsFile::read_header() {
  struct stat status;
  if (::fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) user_error("{}: is not a file", path_);
  const std::int64_t file_size = status.st_size;
  unsigned char prefix[8];
  if (file_size < 8) user_error("{}: has {} bytes; a safetensors file begins with an 8-byte length (an interrupted download?)", path_, file_size);
  pread_all(fd_, prefix, 8, 0, path_);
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; i--) length = length << 8 | prefix[i];
  if (length > kMaxHeader) user_error("{}: the header's length {} is beyond 100000000: this is no safetensors file", path_, length);
  if (std::int64_t(length) > file_size - 8) {
    user_error("{}: the header has {} bytes but the file only {} after its length: the file is truncated", path_, length, file_size - 8);
  }
  std::string text(length, '\0');
  pread_all(fd_, text.data(), std::int64_t(length), 8, path_);
  const Json header = Json::parse(text, path_ + " (header)");
  const JsonView view(header, path_);
  for (const auto& [name, value] : view.object()) {
    if (name == "__metadata__") {
      const JsonView metadata = view[name];
      for (const auto& [key, entry] : metadata.object()) metadata_[key] = entry.string(fmt::format("{}.{}", metadata.where(), key));
    } else {
      tensors_.push_back(read_info(name, JsonView(value, fmt::format("{}: tensor {}", path_, name))));
    }
  }
  data_begin_ = 8 + std::int64_t(length);
  std::sort(tensors_.begin(), tensors_.end(), [](const SafetensorsInfo& a, const SafetensorsInfo& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);  // an empty tensor stands before the one that shares its begin
  });
  std::int64_t covered = 0;
  for (const SafetensorsInfo& info : tensors_) {
    if (info.begin != covered) {
      user_error("{}: tensor {} begins at byte {} of the data, the one before it ends at {}: {}", path_, info.name, info.begin, covered,
                 info.begin < covered ? "they overlap" : "there is a gap");
    }
    covered = info.end;
  }
  if (covered != file_size - data_begin_) {
    user_error("{}: the header describes {} bytes of data, the file has {}{}", path_, covered, file_size - data_begin_,
               covered > file_size - data_begin_ ? ": the file is truncated" : "");
  }
  for (std::size_t i = 0; i < tensors_.size(); i++) index_[tensors_[i].name] = i;
}

const SafetensorsInfo* SafetensorsFile::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

void SafetensorsFile::read(const SafetensorsInfo& info, std::int64_t offset, std::int64_t size, void* out) const {
  AF_CHECK(offset >= 0 && size >= 0 && offset + size <= info.bytes(), "{}: bytes [{}, {}) of {}", info.name, offset, offset + size, info.bytes());
  pread_all(fd_, out, size, data_begin_ + info.begin + offset, path_);
}

SafetensorsFolder::SafetensorsFolder(const std::string& folder) : path_(folder) {
  const fs::path single = fs::path(folder) / shard_name(0, 1), index_path = fs::path(folder) / kIndexName;
  const bool has_index = fs::exists(index_path);
  if (!has_index && !fs::exists(single)) {
    user_error("{}: has neither {} nor {}; give a folder as save_pretrained or the Hugging Face hub writes it", folder, shard_name(0, 1), kIndexName);
  }
  if (has_index && fs::exists(single)) {
    user_error("{}: has both {} and {}: it is not clear which of them is the model; remove one", folder, shard_name(0, 1), kIndexName);
  }
  std::map<std::string, std::string> weight_map;  // tensor -> file
  if (has_index) {
    const Json index = Json::parse_file(index_path.string());
    const JsonView map = JsonView(index, index_path.string())["weight_map"];
    for (const auto& [name, file] : map.object()) {
      const std::string& file_name = file.string(fmt::format("{}.{}", map.where(), name));
      if (file_name.find('/') != file_name.npos)
        user_error("{}: {} is in \"{}\"; the shards must lie beside the index", map.where(), name, file_name);
      weight_map[name] = file_name;
      if (!files_.contains(file_name)) files_.emplace(file_name, (fs::path(folder) / file_name).string());
    }
  } else {
    files_.emplace(shard_name(0, 1), single.string());
  }
  for (const auto& [file_name, file] : files_) {
    for (const SafetensorsInfo& info : file.tensors()) {
      const auto mapped = weight_map.find(info.name);
      if (has_index && (mapped == weight_map.end() || mapped->second != file_name)) {
        user_error("{}: holds {}, which {} places in {}", file.path(), info.name, kIndexName,
                   mapped == weight_map.end() ? "no file" : mapped->second);
      }
      tensors_[info.name] = {&file, &info};
    }
  }
  for (const auto& [name, file_name] : weight_map)
    if (!tensors_.contains(name)) user_error("{}: {} should be in {} but is not there", index_path.string(), name, file_name);
}

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<SafetensorsInfo> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : path_(path), aside_(path + ".partial"), tensors_(std::move(tensors)) {
  std::sort(tensors_.begin(), tensors_.end(), [](const SafetensorsInfo& a, const SafetensorsInfo& b) {
    const std::size_t size_a = safetensors_size_of(a.dtype), size_b = safetensors_size_of(b.dtype);
    return size_a != size_b ? size_a > size_b : a.name < b.name;
  });
  Json::Object header;
  if (!metadata.empty()) header.emplace_back("__metadata__", Json::Object(metadata.begin(), metadata.end()));
  for (SafetensorsInfo& info : tensors_) {
    const std::int64_t bytes = size_in_bytes(info.shape, safetensors_size_of(info.dtype));
    AF_CHECK(bytes >= 0 && safetensors_size_of(info.dtype) > 0, "{}: {} elements of type {}", info.name, info.shape_text(), info.dtype);
    info.begin = size_;
    info.end = size_ += bytes;
    header.emplace_back(info.name, Json::Object{{"dtype", info.dtype},
                                                {"shape", Json::Array(info.shape.begin(), info.shape.end())},
                                                {"data_offsets", Json::Array{info.begin, info.end}}});
  }
  std::string text = Json(std::move(header)).dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  data_begin_ = 8 + std::int64_t(text.size());
  unsigned char prefix[8];
  for (int i = 0; i < 8; i++) prefix[i] = static_cast<unsigned char>(text.size() >> 8 * i);
  fd_ = ::open(aside_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) user_error("{}: cannot be created: {}", aside_, std::strerror(errno));
  try {
    pwrite_all(fd_, prefix, 8, 0, aside_);
    pwrite_all(fd_, text.data(), std::int64_t(text.size()), 8, aside_);
  } catch (...) {
    ::close(fd_);
    ::unlink(aside_.c_str());
    throw;
  }
}

SafetensorsWriter::~SafetensorsWriter() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(aside_.c_str());
}

void SafetensorsWriter::write(const SafetensorsInfo& info, std::int64_t offset, std::int64_t size, const void* data) {
  AF_CHECK(offset >= 0 && size >= 0 && offset + size <= info.bytes(), "{}: bytes [{}, {}) of {}", info.name, offset, offset + size, info.bytes());
  pwrite_all(fd_, data, size, data_begin_ + info.begin + offset, aside_);
  written_ += size;
}

void SafetensorsWriter::finish() {
  AF_CHECK(written_ == size_, "{}: {} bytes were written of {}", path_, written_, size_);
  const bool synced = ::fsync(fd_) == 0;
  const bool closed = ::close(std::exchange(fd_, -1)) == 0;
  if (!synced || !closed || std::rename(aside_.c_str(), path_.c_str()) != 0) {
    const std::string reason = std::strerror(errno);
    ::unlink(aside_.c_str());
    throw InternalError(fmt::format("{}: cannot be written: {}", path_, reason));
  }
}

std::vector<std::vector<SafetensorsInfo>> split_into_shards(const std::vector<SafetensorsInfo>& tensors, std::int64_t max_shard_size) {
  std::vector<std::vector<SafetensorsInfo>> shards;
  std::vector<SafetensorsInfo> open;
  std::int64_t size = 0;
  for (const SafetensorsInfo& info : tensors) {
    const std::int64_t bytes = size_in_bytes(info.shape, safetensors_size_of(info.dtype));
    if (bytes > max_shard_size) {
      shards.push_back({info});
      continue;
    }
    if (size + bytes > max_shard_size) {
      shards.push_back(std::exchange(open, {}));
      size = 0;
    }
    open.push_back(info);
    size += bytes;
  }
  if (!open.empty() || shards.empty()) shards.push_back(std::move(open));
  return shards;
}

std::string shard_name(std::size_t shard, std::size_t num_shards) {
  return num_shards == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, num_shards);
}

std::string shard_index(const std::vector<std::vector<SafetensorsInfo>>& shards, std::int64_t total_parameters) {
  std::map<std::string, std::string> files;
  std::int64_t total_size = 0;
  for (std::size_t i = 0; i < shards.size(); i++) {
    for (const SafetensorsInfo& info : shards[i]) {
      files[info.name] = shard_name(i, shards.size());
      total_size += size_in_bytes(info.shape, safetensors_size_of(info.dtype));
    }
  }
  Json::Object weight_map;
  for (const auto& [name, file] : files) weight_map.emplace_back(name, file);
  return Json(
             Json::Object{{"metadata", Json::Object{{"total_parameters", total_parameters}, {"total_size", total_size}}}, {"weight_map", weight_map}})
             .dump(2) +
         "\n";
}

}  // namespace af
