#include "data/megatron_dataset.h"

#include <array>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "data/file.h"

namespace af {
namespace {

constexpr std::string_view kMapped("MMIDIDX\0\0", 9), kLegacy("TNTIDX\0\0", 8);
struct Type {
  const char* name;
  int bytes;  // 0: no integers
};
constexpr std::array kTypes{Type{"", 0},      Type{"uint8", 1}, Type{"int8", 1},  Type{"int16", 2}, Type{"int32", 4},
                            Type{"int64", 8}, Type{"float", 0}, Type{"float", 0}, Type{"uint16", 2}};

std::string without_ending(const std::string& name) {
  return name.ends_with(".bin") || name.ends_with(".idx") ? name.substr(0, name.size() - 4) : name;
}

// Reads the index from its beginning; every count is checked against the bytes that there are.
class IndexReader {
 public:
  IndexReader(std::string path, std::string_view bytes) : path_(std::move(path)), bytes_(bytes) {}

  template <class T>
  T number(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof value, what), sizeof value);
    return value;
  }
  std::int64_t count(const char* what) {
    const std::uint64_t value = number<std::uint64_t>(what);
    if (value > std::uint64_t(bytes_.size())) user_error("{}: {} {} in a file of {} bytes", path_, value, what, bytes_.size());
    return std::int64_t(value);
  }
  // at(i): the i-th element
  template <class T>
  auto array(std::int64_t size, const char* what) {
    const char* begin = take(std::size_t(size) * sizeof(T), what);
    return [begin](std::int64_t i) {
      T value;
      std::memcpy(&value, begin + std::size_t(i) * sizeof value, sizeof value);
      return std::int64_t(value);
    };
  }
  bool starts_with(std::string_view magic) {
    if (!bytes_.substr(at_).starts_with(magic)) return false;
    at_ += magic.size();
    return true;
  }
  std::int64_t left() const { return std::int64_t(bytes_.size() - at_); }
  const std::string& path() const { return path_; }

 private:
  const char* take(std::size_t size, const char* what) {
    if (bytes_.size() - at_ < size) user_error("{}: the index ends within its {} ({} bytes of {} are left)", path_, what, bytes_.size() - at_, size);
    at_ += size;
    return bytes_.data() + at_ - size;
  }
  std::string path_;
  std::string_view bytes_;
  std::size_t at_ = 0;
};

// The end of each document in tokens, from the end of each sequence.
template <class Index>
std::vector<std::int64_t> document_ends(const IndexReader& in, const std::vector<std::int64_t>& sequence_ends, std::int64_t entries, Index&& index) {
  const std::int64_t sequences = std::int64_t(sequence_ends.size());
  if (entries < 1 || index(0) != 0 || index(entries - 1) != sequences) {
    user_error("{}: the document index must run from 0 to the number of sequences, {}; it has {} entries{}", in.path(), sequences, entries,
               entries < 1 ? "" : fmt::format(" from {} to {}", index(0), index(entries - 1)));
  }
  std::vector<std::int64_t> ends;
  for (std::int64_t d = 0; d + 1 < entries; ++d) {
    const std::int64_t begin = index(d), end = index(d + 1);
    if (end < begin || end > sequences) user_error("{}: document {} is sequences {} to {} of {}", in.path(), d, begin, end, sequences);
    ends.push_back(end == 0 ? 0 : sequence_ends[std::size_t(end - 1)]);
  }
  return ends;
}

}  // namespace

MegatronDataset::MegatronDataset(const std::string& prefix) : prefix_(without_ending(prefix)), bin_(bin_path()) {
  const std::string index_bytes = read_file(idx_path());
  idx_sha256_ = sha256_hex(index_bytes);
  IndexReader in(idx_path(), index_bytes);
  const bool mapped = in.starts_with(kMapped);
  if (!mapped && !in.starts_with(kLegacy)) user_error("{}: begins neither with MMIDIDX nor with TNTIDX: no index of Megatron's", idx_path());
  if (std::uint64_t version = in.number<std::uint64_t>("version"); version != 1) {
    user_error("{}: an index of version {}; this program reads version 1", idx_path(), version);
  }
  const std::uint64_t type = mapped ? in.number<std::uint8_t>("type") : in.number<std::uint64_t>("type");
  if (type < 1 || type >= kTypes.size() || kTypes[type].bytes == 0) {
    user_error("{}: elements of type {}{}; token ids are integers (1 to 5 or 8)", idx_path(), type, type == 6 || type == 7 ? ", floating point" : "");
  }
  type_ = int(type);
  element_bytes_ = kTypes[type].bytes;

  std::vector<std::int64_t> ends;  // of each sequence in tokens
  std::int64_t sum = 0;
  if (mapped) {
    const std::int64_t sequences = in.count("sequences"), entries = in.count("entries of the document index");
    const auto sizes = in.array<std::int32_t>(sequences, "sizes");
    const auto pointers = in.array<std::int64_t>(sequences, "pointers");
    const auto index = in.array<std::int64_t>(entries, "document index");
    ends.reserve(std::size_t(sequences));
    for (std::int64_t s = 0; s < sequences; ++s) {
      if (sizes(s) < 0) user_error("{}: sequence {} has the size {}", idx_path(), s, sizes(s));
      if (pointers(s) != sum * element_bytes_) {
        user_error("{}: sequence {} begins at byte {}, but those before it take {} bytes", idx_path(), s, pointers(s), sum * element_bytes_);
      }
      ends.push_back(sum += sizes(s));
    }
    if (in.left() > 0) {
      const auto modes = in.array<std::int8_t>(sequences, "modes");
      for (std::int64_t s = 0; s < sequences; ++s) other_modes_ += modes(s) != 0;
    }
    document_ends_ = document_ends(in, ends, entries, index);
  } else {
    const std::uint64_t bytes = in.number<std::uint64_t>("element size");
    if (bytes != std::uint64_t(element_bytes_)) user_error("{}: elements of {} bytes are not {}", idx_path(), bytes, type_name());
    const std::int64_t sequences = in.count("sequences"), dims = in.count("sizes");
    // Before there was a document index, each sequence was a document: the file's length tells.
    const bool plain = in.left() == 8 * (2 * (sequences + 1) + dims);
    const std::int64_t entries = plain ? sequences + 1 : in.count("entries of the document index");
    const auto dim_offsets = in.array<std::int64_t>(sequences + 1, "dim_offsets");
    const auto data_offsets = in.array<std::int64_t>(sequences + 1, "data_offsets");
    const auto sizes = in.array<std::int64_t>(dims, "sizes");
    if (dim_offsets(0) != 0 || dim_offsets(sequences) != dims || data_offsets(0) != 0) {
      user_error("{}: the offsets must run from 0, those of sizes to {}", idx_path(), dims);
    }
    ends.reserve(std::size_t(sequences));
    for (std::int64_t s = 0; s < sequences; ++s) {
      __extension__ __int128 elements = 1;
      if (dim_offsets(s) > dim_offsets(s + 1) || dim_offsets(s + 1) > dims) user_error("{}: sequence {}: its dim_offsets decrease", idx_path(), s);
      for (std::int64_t d = dim_offsets(s); d < dim_offsets(s + 1); ++d) {
        if (sizes(d) < 0 || (elements *= sizes(d)) > INT64_MAX / 16) user_error("{}: sequence {} has the size {}", idx_path(), s, sizes(d));
      }
      if (data_offsets(s) != sum || data_offsets(s + 1) != sum + std::int64_t(elements)) {
        user_error("{}: sequence {} lies at elements {} to {}; its size says {} to {}", idx_path(), s, data_offsets(s), data_offsets(s + 1), sum,
                   sum + std::int64_t(elements));
      }
      ends.push_back(sum += std::int64_t(elements));
    }
    if (plain) {
      document_ends_ = document_ends(in, ends, entries, [](std::int64_t i) { return i; });
    } else {
      document_ends_ = document_ends(in, ends, entries, in.array<std::int64_t>(entries, "document index"));
    }
  }
  if (in.left() > 0) user_error("{}: {} bytes are left after the index", idx_path(), in.left());
  const std::int64_t bin_bytes = stamp_of(bin_path()).bytes;
  if (bin_bytes != sum * element_bytes_) {
    user_error("{}: has {} bytes; the index says {} tokens of {} bytes, {}", bin_path(), bin_bytes, sum, element_bytes_, sum * element_bytes_);
  }
}

const char* MegatronDataset::type_name() const { return kTypes[std::size_t(type_)].name; }

void MegatronDataset::next(std::int64_t vocab_size, std::vector<std::uint32_t>& tokens) {
  const std::int64_t begin = next_ == 0 ? 0 : document_ends_[std::size_t(next_ - 1)], end = document_ends_.at(std::size_t(next_));
  buffer_.resize(std::size_t((end - begin) * element_bytes_));
  if (bin_.read(buffer_.data(), buffer_.size()) != buffer_.size()) user_error("{}: was cut while it was read", bin_path());
  tokens.resize(std::size_t(end - begin));
  const auto convert = [&]<class T>(T) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      T id;
      std::memcpy(&id, buffer_.data() + i * sizeof id, sizeof id);
      if (std::cmp_less(id, 0) || std::cmp_greater_equal(id, vocab_size)) {
        user_error("{}: token {} of document {} is {}; the tokenizer has {} ids", bin_path(), i, next_, std::int64_t(id), vocab_size);
      }
      tokens[i] = std::uint32_t(id);
    }
  };
  switch (type_) {
    case 1:
      convert(std::uint8_t{});
      break;
    case 2:
      convert(std::int8_t{});
      break;
    case 3:
      convert(std::int16_t{});
      break;
    case 4:
      convert(std::int32_t{});
      break;
    case 5:
      convert(std::int64_t{});
      break;
    default:
      convert(std::uint16_t{});
  }
  ++next_;
}

}  // namespace af
