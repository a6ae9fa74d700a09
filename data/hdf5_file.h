// HDF5 files: the one wrapper of the HDF5 library. Whole datasets and rectangles go to and from raw memory without
// conversion. Every failure is a UserError "FILE: what could not be done (the library's reason)"; a truncated or garbage
// file gives one such message. Objects may be used by several threads, one at a time each (the library itself locks).
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace af {

// Element types, little-endian in the file. bf16 is a 16-bit float of 8 exponent bits, which h5py reads as float32.
enum class H5Type : std::uint8_t { u8, u16, i32, u32, i64, u64, f32, f64, bf16 };
std::size_t size_of(H5Type type);
const char* name_of(H5Type type);

// An open object of the library, closed at the end of its life.
class H5Handle {
 public:
  H5Handle() = default;
  H5Handle(std::int64_t id, int (*close)(std::int64_t)) : id_(id), close_(close) {}
  ~H5Handle() { reset(); }
  H5Handle(H5Handle&& other) noexcept : id_(other.id_), close_(other.close_) { other.id_ = -1; }
  H5Handle& operator=(H5Handle&& other) noexcept;
  std::int64_t id() const { return id_; }
  int reset();  // closes it; negative where the library failed

 private:
  std::int64_t id_ = -1;
  int (*close_)(std::int64_t) = nullptr;
};

struct H5Layout {
  std::int64_t chunk_rows = 0;  // rows (of the first dimension) per chunk; 0: contiguous, of fixed size
  bool extendible = false;      // the first dimension may grow (needs chunks)
  bool fletcher32 = false;      // a checksum per chunk, checked at every read (needs chunks)
  bool placed = false;          // contiguous: its place in the file is fixed at once, for bytes that go past the library
};

class H5Dataset {
 public:
  const std::vector<std::int64_t>& shape() const { return shape_; }
  std::int64_t rows() const { return shape_.at(0); }
  H5Type type() const { return type_; }
  std::string where() const;  // "FILE: /tokens", for messages
  // The byte of the file where a contiguous dataset begins, once it is placed or written.
  std::int64_t file_offset() const;

  // The rectangle [begin, begin + count) to or from dense memory of that dataset's type. `memory_type` must be type():
  // an int32 is never silently read as a float.
  void read(std::span<const std::int64_t> begin, std::span<const std::int64_t> count, H5Type memory_type, void* out) const;
  void write(std::span<const std::int64_t> begin, std::span<const std::int64_t> count, H5Type memory_type, const void* data);
  // Rows [begin, begin + count) with all of the other dimensions.
  void read_rows(std::int64_t begin, std::int64_t count, H5Type memory_type, void* out) const;
  void append_rows(std::int64_t count, H5Type memory_type, const void* data);  // an extendible dataset grows by `count` rows

 private:
  friend class H5File;
  H5Dataset(H5Handle handle, std::string file, std::string name);
  H5Handle handle_;
  std::string file_, name_;
  std::vector<std::int64_t> shape_;
  H5Type type_ = H5Type::u8;
};

class H5File {
 public:
  static H5File create(const std::string& path);  // anew: what was there is lost
  // Whether the file's metadata have checksums (superblock 3, libver v110), so that damage is an error of the library. Others, as h5py
  // writes them by default, can crash it where they are damaged: read them in a child process first (launch/dataset_check.h).
  static bool has_checksums(const std::string& path);
  static H5File open(const std::string& path);    // for reading
  const std::string& path() const { return path_; }

  bool has(const std::string& dataset) const;
  H5Dataset create_dataset(const std::string& name, H5Type type, const std::vector<std::int64_t>& shape, const H5Layout& layout = {});
  // cache_bytes: chunks that are kept decoded for later reads of this dataset.
  H5Dataset dataset(const std::string& name, std::int64_t cache_bytes = 1 << 20) const;

  // Attributes of a dataset ("/" is the file itself).
  bool has_attribute(const std::string& object, const std::string& name) const;
  void set_attribute(const std::string& object, const std::string& name, const std::string& value);
  void set_attribute(const std::string& object, const std::string& name, std::int64_t value);
  std::string string_attribute(const std::string& object, const std::string& name) const;
  std::int64_t integer_attribute(const std::string& object, const std::string& name) const;

  void close();  // writes what is pending to disk (fsync) and reports a full disk, which a destructor cannot. Close datasets first

 private:
  H5File(H5Handle handle, std::string path, bool writing) : handle_(std::move(handle)), path_(std::move(path)), writing_(writing) {}
  H5Handle handle_;
  std::string path_;
  bool writing_;
};

}  // namespace af
