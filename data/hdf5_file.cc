#include "data/hdf5_file.h"

#include <fcntl.h>
#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "core/error.h"

namespace af {
namespace {

static_assert(sizeof(hid_t) == sizeof(std::int64_t));

template <herr_t (*close)(hid_t)>
H5Handle handle(hid_t id) {
  return H5Handle(
      id, +[](std::int64_t open) -> int { return close(open); });
}

// The library prints its error stack to stderr unless told otherwise, per thread: so each entry point says it. At the
// process's exit it would close what is open, and crashes where a file could not be written (a full disk): ours close themselves.
void silence() {
  H5dont_atexit();
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

// The innermost entry of the library's error stack is the reason; the others say how it travelled. Every call into the
// library empties the stack: a handle used by a call that may fail must outlive its expression.
std::string reason() {
  std::string text;
  auto visit = [](unsigned, const H5E_error2_t* error, void* out) -> herr_t {
    std::string& first = *static_cast<std::string*>(out);
    if (first.empty() && error->desc) first = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, visit, &text);
  H5Eclear2(H5E_DEFAULT);
  constexpr std::string_view kSystem = "error message = '";  // among much that is for the library's authors: the system's own words
  if (std::size_t begin = text.find(kSystem); begin != std::string::npos) {
    text.erase(0, begin + kSystem.size());
    text.resize(std::min(text.find('\''), text.size()));
  }
  return text.empty() ? "HDF5 gives no reason" : text;
}

[[noreturn]] void fail(const std::string& where, const std::string& what) { user_error("{}: {} ({})", where, what, reason()); }

H5Handle bf16_type() {  // sign, 8 exponent bits, 7 mantissa bits: the upper half of an IEEE float
  H5Handle type = handle<H5Tclose>(H5Tcopy(H5T_IEEE_F32LE));
  H5Tset_fields(type.id(), 15, 7, 8, 0, 7);
  H5Tset_precision(type.id(), 16);
  H5Tset_size(type.id(), 2);
  H5Tset_ebias(type.id(), 127);
  return type;
}

H5Handle library_type(H5Type type) {
  switch (type) {
    case H5Type::u8:
      return handle<H5Tclose>(H5Tcopy(H5T_STD_U8LE));
    case H5Type::u16:
      return handle<H5Tclose>(H5Tcopy(H5T_STD_U16LE));
    case H5Type::i32:
      return handle<H5Tclose>(H5Tcopy(H5T_STD_I32LE));
    case H5Type::u32:
      return handle<H5Tclose>(H5Tcopy(H5T_STD_U32LE));
    case H5Type::i64:
      return handle<H5Tclose>(H5Tcopy(H5T_STD_I64LE));
    case H5Type::u64:
      return handle<H5Tclose>(H5Tcopy(H5T_STD_U64LE));
    case H5Type::f32:
      return handle<H5Tclose>(H5Tcopy(H5T_IEEE_F32LE));
    case H5Type::f64:
      return handle<H5Tclose>(H5Tcopy(H5T_IEEE_F64LE));
    case H5Type::bf16:
      return bf16_type();
  }
  AF_CHECK(false, "element type {}", int(type));
  return {};
}

constexpr std::array kTypes{H5Type::u8, H5Type::u16, H5Type::i32, H5Type::u32, H5Type::i64, H5Type::u64, H5Type::f32, H5Type::f64, H5Type::bf16};

std::vector<hsize_t> unsigned_sizes(std::span<const std::int64_t> sizes) { return {sizes.begin(), sizes.end()}; }

H5Handle file_access() {
  H5Handle access = handle<H5Pclose>(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_libver_bounds(access.id(), H5F_LIBVER_V110, H5F_LIBVER_V110);  // checksummed metadata, indexes that append in O(1)
  H5Pset_file_locking(access.id(), false, true);                        // flock fails on many cluster file systems
  return access;
}

// The version of the file's superblock. Refuses what is no HDF5 file.
int superblock_version(const std::string& path) {
  constexpr std::string_view kSignature = "\x89HDF\r\n\x1a\n";
  int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) user_error("{}: cannot be opened: {}", path, std::strerror(errno));
  char head[kSignature.size() + 1] = {};
  const ssize_t n = ::pread(descriptor, head, sizeof head, 0);
  const int error = errno;
  ::close(descriptor);
  if (n < 0) user_error("{}: cannot be read: {}", path, std::strerror(error));
  if (n != ssize_t(sizeof head) || std::string_view(head, kSignature.size()) != kSignature) {
    user_error("{}: not an HDF5 file, or one whose beginning is lost", path);
  }
  return static_cast<unsigned char>(head[kSignature.size()]);
}

H5Handle open_object(const H5Handle& file, const std::string& path, const std::string& name) {
  H5Handle object = handle<H5Oclose>(H5Oopen(file.id(), name.c_str(), H5P_DEFAULT));
  if (object.id() < 0) fail(path, fmt::format("there is no '{}'", name));
  return object;
}

// Anew, whatever was there under that name.
H5Handle create_attribute(const H5Handle& object, const std::string& where, const std::string& name, const H5Handle& type) {
  if (H5Aexists(object.id(), name.c_str()) > 0) H5Adelete(object.id(), name.c_str());
  H5Handle space = handle<H5Sclose>(H5Screate(H5S_SCALAR));
  H5Handle attribute = handle<H5Aclose>(H5Acreate2(object.id(), name.c_str(), type.id(), space.id(), H5P_DEFAULT, H5P_DEFAULT));
  if (attribute.id() < 0) fail(where, fmt::format("cannot write the attribute '{}'", name));
  return attribute;
}

H5Handle open_attribute(const H5Handle& object, const std::string& where, const std::string& name) {
  H5Handle attribute = handle<H5Aclose>(H5Aopen(object.id(), name.c_str(), H5P_DEFAULT));
  if (attribute.id() < 0) fail(where, fmt::format("there is no attribute '{}'", name));
  H5Handle space = handle<H5Sclose>(H5Aget_space(attribute.id()));
  if (H5Sget_simple_extent_npoints(space.id()) != 1) user_error("{}: the attribute '{}' is not one value", where, name);
  return attribute;
}

}  // namespace

std::size_t size_of(H5Type type) {
  switch (type) {
    case H5Type::u8:
      return 1;
    case H5Type::u16:
    case H5Type::bf16:
      return 2;
    case H5Type::i32:
    case H5Type::u32:
    case H5Type::f32:
      return 4;
    default:
      return 8;
  }
}

const char* name_of(H5Type type) {
  constexpr std::array names{"uint8", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bfloat16"};
  return names.at(std::size_t(type));
}

int H5Handle::reset() {
  int status = id_ >= 0 ? close_(id_) : 0;
  id_ = -1;
  return status;
}

H5Handle& H5Handle::operator=(H5Handle&& other) noexcept {
  if (this != &other) {
    reset();
    id_ = std::exchange(other.id_, -1);
    close_ = other.close_;
  }
  return *this;
}

H5Dataset::H5Dataset(H5Handle handle_in, std::string file, std::string name)
    : handle_(std::move(handle_in)), file_(std::move(file)), name_(std::move(name)) {
  H5Handle space = handle<H5Sclose>(H5Dget_space(handle_.id()));
  int rank = H5Sget_simple_extent_ndims(space.id());
  if (rank < 0) fail(where(), "cannot read its shape");
  std::vector<hsize_t> sizes(rank);
  H5Sget_simple_extent_dims(space.id(), sizes.data(), nullptr);
  shape_.assign(sizes.begin(), sizes.end());
  H5Handle stored = handle<H5Tclose>(H5Dget_type(handle_.id()));
  for (H5Type type : kTypes) {
    if (H5Tequal(stored.id(), library_type(type).id()) > 0) {
      type_ = type;
      return;
    }
  }
  user_error("{}: the element type is none of the little-endian integers and floats known here", where());
}

std::string H5Dataset::where() const { return file_ + ": " + name_; }

namespace {

// Selects a rectangle of a dataset; gives (memory space, file space).
std::pair<H5Handle, H5Handle> select(const H5Handle& dataset, const H5Dataset& shape, std::span<const std::int64_t> begin,
                                     std::span<const std::int64_t> count) {
  std::size_t rank = shape.shape().size();
  AF_CHECK(begin.size() == rank && count.size() == rank, "{}: a rectangle of {} dimensions of {}", shape.where(), begin.size(), rank);
  for (std::size_t d = 0; d < rank; ++d) {
    AF_CHECK(begin[d] >= 0 && count[d] >= 0 && begin[d] + count[d] <= shape.shape()[d], "{}: [{}, {}) of {} in dimension {}", shape.where(), begin[d],
             begin[d] + count[d], shape.shape()[d], d);
  }
  H5Handle file = handle<H5Sclose>(H5Dget_space(dataset.id()));
  std::vector<hsize_t> offset = unsigned_sizes(begin), size = unsigned_sizes(count);
  if (rank == 0) return {handle<H5Sclose>(H5Screate(H5S_SCALAR)), std::move(file)};
  if (H5Sselect_hyperslab(file.id(), H5S_SELECT_SET, offset.data(), nullptr, size.data(), nullptr) < 0) fail(shape.where(), "cannot select a range");
  return {handle<H5Sclose>(H5Screate_simple(int(rank), size.data(), nullptr)), std::move(file)};
}

std::string range_of(std::span<const std::int64_t> begin, std::span<const std::int64_t> count) {
  return begin.empty() ? "the value" : fmt::format("[{}, {})", begin[0], begin[0] + count[0]);
}

}  // namespace

void H5Dataset::read(std::span<const std::int64_t> begin, std::span<const std::int64_t> count, H5Type memory_type, void* out) const {
  silence();
  AF_CHECK(memory_type == type_, "{}: {} read as {}", where(), name_of(type_), name_of(memory_type));
  auto [memory, file] = select(handle_, *this, begin, count);
  H5Handle element = library_type(type_);
  if (H5Dread(handle_.id(), element.id(), memory.id(), file.id(), H5P_DEFAULT, out) < 0) {
    fail(where(), fmt::format("cannot read {}, the file is damaged", range_of(begin, count)));
  }
}

void H5Dataset::write(std::span<const std::int64_t> begin, std::span<const std::int64_t> count, H5Type memory_type, const void* data) {
  silence();
  AF_CHECK(memory_type == type_, "{}: {} written as {}", where(), name_of(type_), name_of(memory_type));
  auto [memory, file] = select(handle_, *this, begin, count);
  H5Handle element = library_type(type_);
  if (H5Dwrite(handle_.id(), element.id(), memory.id(), file.id(), H5P_DEFAULT, data) < 0) {
    fail(where(), fmt::format("cannot write {}", range_of(begin, count)));
  }
}

std::int64_t H5Dataset::file_offset() const {
  silence();
  const haddr_t offset = H5Dget_offset(handle_.id());
  if (offset == HADDR_UNDEF) user_error("{}: is not contiguous in the file", where());
  return std::int64_t(offset);
}

void H5Dataset::read_rows(std::int64_t begin, std::int64_t count, H5Type memory_type, void* out) const {
  std::vector<std::int64_t> first(shape_.size(), 0), size = shape_;
  first.at(0) = begin;
  size.at(0) = count;
  read(first, size, memory_type, out);
}

void H5Dataset::append_rows(std::int64_t count, H5Type memory_type, const void* data) {
  silence();
  std::vector<std::int64_t> begin(shape_.size(), 0), size = shape_;
  begin.at(0) = shape_[0];
  size[0] = count;
  shape_[0] += count;
  if (H5Dset_extent(handle_.id(), unsigned_sizes(shape_).data()) < 0) fail(where(), "cannot grow");
  write(begin, size, memory_type, data);
}

H5File H5File::create(const std::string& path) {
  silence();
  int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT, 0666);  // the system's own words for what is wrong with the path
  if (descriptor < 0) user_error("{}: cannot be created: {}", path, std::strerror(errno));
  ::close(descriptor);
  H5Handle access = file_access();
  // Small writes to contiguous datasets go straight to the file: a full disk is met by write(), not unseen at the dataset's end.
  H5Pset_sieve_buf_size(access.id(), 0);
  H5Handle properties = handle<H5Pclose>(H5Pcreate(H5P_FILE_CREATE));
  H5Pset_obj_track_times(properties.id(), false);  // equal contents give equal bytes; likewise for groups and datasets
  H5Handle file = handle<H5Fclose>(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, properties.id(), access.id()));
  if (file.id() < 0) fail(path, "cannot be created");
  return H5File(std::move(file), path, true);
}

bool H5File::has_checksums(const std::string& path) { return superblock_version(path) >= 3; }

H5File H5File::open(const std::string& path) {
  silence();
  superblock_version(path);
  H5Handle access = file_access();
  H5Handle file = handle<H5Fclose>(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.id()));
  if (file.id() < 0) fail(path, "the HDF5 file is damaged or was not written to its end");
  return H5File(std::move(file), path, false);
}

bool H5File::has(const std::string& dataset) const {
  silence();
  return H5Lexists(handle_.id(), dataset.c_str(), H5P_DEFAULT) > 0;
}

H5Dataset H5File::create_dataset(const std::string& name, H5Type type, const std::vector<std::int64_t>& shape, const H5Layout& layout) {
  silence();
  AF_CHECK(layout.chunk_rows > 0 || (!layout.extendible && !layout.fletcher32), "{}: {} needs chunks", path_, name);
  std::vector<hsize_t> size = unsigned_sizes(shape), most = size, chunk = size;
  H5Handle properties = handle<H5Pclose>(H5Pcreate(H5P_DATASET_CREATE));
  H5Pset_obj_track_times(properties.id(), false);
  H5Pset_fill_time(properties.id(), H5D_FILL_TIME_NEVER);
  if (layout.placed) H5Pset_alloc_time(properties.id(), H5D_ALLOC_TIME_EARLY);
  if (layout.extendible) most.at(0) = H5S_UNLIMITED;
  if (layout.chunk_rows > 0) {
    chunk.at(0) = hsize_t(layout.chunk_rows);
    H5Pset_chunk(properties.id(), int(chunk.size()), chunk.data());
    if (layout.fletcher32) H5Pset_fletcher32(properties.id());
  }
  H5Handle element = library_type(type);
  H5Handle space = handle<H5Sclose>(shape.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(int(size.size()), size.data(), most.data()));
  H5Handle dataset = handle<H5Dclose>(H5Dcreate2(handle_.id(), name.c_str(), element.id(), space.id(), H5P_DEFAULT, properties.id(), H5P_DEFAULT));
  if (dataset.id() < 0) fail(path_, fmt::format("cannot create the dataset '{}'", name));
  return H5Dataset(std::move(dataset), path_, name);
}

H5Dataset H5File::dataset(const std::string& name, std::int64_t cache_bytes) const {
  silence();
  H5Handle access = handle<H5Pclose>(H5Pcreate(H5P_DATASET_ACCESS));
  H5Pset_chunk_cache(access.id(), 10007, std::size_t(cache_bytes), 0.75);  // w0 = 1.0 would make the cache unbounded
  H5Handle dataset = handle<H5Dclose>(H5Dopen2(handle_.id(), name.c_str(), access.id()));
  if (dataset.id() < 0) fail(path_, fmt::format("there is no readable dataset '{}'", name));
  return H5Dataset(std::move(dataset), path_, name);
}

bool H5File::has_attribute(const std::string& object, const std::string& name) const {
  silence();
  return H5Aexists(open_object(handle_, path_, object).id(), name.c_str()) > 0;
}

void H5File::set_attribute(const std::string& object, const std::string& name, const std::string& value) {
  silence();
  H5Handle type = handle<H5Tclose>(H5Tcopy(H5T_C_S1));  // of fixed length: inside the checksummed object header
  H5Tset_size(type.id(), std::max<std::size_t>(1, value.size()));
  H5Tset_strpad(type.id(), H5T_STR_NULLPAD);
  H5Tset_cset(type.id(), H5T_CSET_UTF8);
  H5Handle attribute = create_attribute(open_object(handle_, path_, object), path_, name, type);
  if (H5Awrite(attribute.id(), type.id(), value.c_str()) < 0) fail(path_, fmt::format("cannot write the attribute '{}'", name));
}

void H5File::set_attribute(const std::string& object, const std::string& name, std::int64_t value) {
  silence();
  H5Handle type = library_type(H5Type::i64);
  H5Handle attribute = create_attribute(open_object(handle_, path_, object), path_, name, type);
  if (H5Awrite(attribute.id(), type.id(), &value) < 0) fail(path_, fmt::format("cannot write the attribute '{}'", name));
}

std::string H5File::string_attribute(const std::string& object, const std::string& name) const {
  silence();
  H5Handle attribute = open_attribute(open_object(handle_, path_, object), path_, name);
  H5Handle stored = handle<H5Tclose>(H5Aget_type(attribute.id()));
  if (H5Tget_class(stored.id()) != H5T_STRING) user_error("{}: the attribute '{}' is not text", path_, name);
  H5Handle memory = handle<H5Tclose>(H5Tcopy(stored.id()));
  if (H5Tis_variable_str(stored.id()) > 0) {  // as h5py writes it
    char* text = nullptr;
    if (H5Aread(attribute.id(), memory.id(), &text) < 0) fail(path_, fmt::format("cannot read the attribute '{}'", name));
    std::string value = text ? text : "";
    H5free_memory(text);
    return value;
  }
  std::string value(H5Tget_size(stored.id()), '\0');
  if (H5Aread(attribute.id(), memory.id(), value.data()) < 0) fail(path_, fmt::format("cannot read the attribute '{}'", name));
  value.resize(std::min(value.size(), value.find('\0')));
  return value;
}

std::int64_t H5File::integer_attribute(const std::string& object, const std::string& name) const {
  silence();
  H5Handle attribute = open_attribute(open_object(handle_, path_, object), path_, name);
  H5Handle stored = handle<H5Tclose>(H5Aget_type(attribute.id()));
  if (H5Tget_class(stored.id()) != H5T_INTEGER) user_error("{}: the attribute '{}' is not an integer", path_, name);
  H5Handle memory = library_type(H5Type::i64);
  std::int64_t value = 0;
  if (H5Aread(attribute.id(), memory.id(), &value) < 0) fail(path_, fmt::format("cannot read the attribute '{}'", name));
  return value;
}

void H5File::close() {
  silence();
  AF_CHECK(H5Fget_obj_count(handle_.id(), H5F_OBJ_ALL) == 1, "{}: closed while its datasets are open", path_);
  if (handle_.reset() < 0) fail(path_, "cannot be written to its end");
  if (!writing_) return;
  int descriptor = ::open(path_.c_str(), O_RDONLY);
  int status = descriptor < 0 ? -1 : ::fsync(descriptor);
  std::string error = std::strerror(errno);
  if (descriptor >= 0) ::close(descriptor);
  if (status < 0) user_error("{}: cannot be written to disk: {}", path_, error);
}

}  // namespace af
