// Plain values one after the other in a string of bytes, little-endian as the machines we run on.
#pragma once
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "core/error.h"

namespace af {

class BytePacker {
 public:
  template <class T>
  void put(const T& value) {
    static_assert(std::has_unique_object_representations_v<T>, "no padding, whose bytes are anything");
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void put_text(std::string_view text) { put(std::uint64_t(text.size())), out_ += text; }
  std::string& bytes() { return out_; }

 private:
  std::string out_;
};

class ByteUnpacker {
 public:
  explicit ByteUnpacker(std::string_view bytes) : rest_(bytes) {}
  template <class T>
  T get() {
    static_assert(std::has_unique_object_representations_v<T>);
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string get_text() { return std::string(take(get<std::uint64_t>())); }
  std::string_view take(std::size_t size) {
    AF_CHECK(size <= rest_.size(), "{} bytes of {} that are left", size, rest_.size());
    std::string_view part = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return part;
  }
  // How many elements of `size` bytes or more follow: never more than there are bytes for.
  std::size_t get_count(std::size_t size) {
    const std::uint64_t count = get<std::uint64_t>();
    AF_CHECK(count <= rest_.size() / size, "{} elements in {} bytes", count, rest_.size());
    return count;
  }
  bool empty() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

}  // namespace af
