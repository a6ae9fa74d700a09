#include "tests/fuzz/hdf5_checksums.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>

namespace af::fuzz {
namespace {

constexpr std::size_t kMostBytes = 2048;  // of a part that is looked for

std::uint32_t word(const unsigned char* at) {
  std::uint32_t value;
  std::memcpy(&value, at, 4);
  return value;
}

// Bob Jenkins's lookup3, as H5_checksum_lookup3 with initial value 0.
std::uint32_t lookup3(const std::string& bytes, std::size_t begin, std::size_t size) {
  const unsigned char* key = reinterpret_cast<const unsigned char*>(bytes.data()) + begin;
  std::uint32_t a = 0xdeadbeef + std::uint32_t(size), b = a, c = a;
  const auto rot = [](std::uint32_t x, int k) { return std::rotl(x, k); };
  while (size > 12) {
    a += word(key), b += word(key + 4), c += word(key + 8);
    a -= c, a ^= rot(c, 4), c += b, b -= a, b ^= rot(a, 6), a += c, c -= b, c ^= rot(b, 8), b += a;
    a -= c, a ^= rot(c, 16), c += b, b -= a, b ^= rot(a, 19), a += c, c -= b, c ^= rot(b, 4), b += a;
    key += 12, size -= 12;
  }
  if (size == 0) return c;
  unsigned char rest[12] = {};
  std::memcpy(rest, key, size);
  a += word(rest), b += word(rest + 4), c += word(rest + 8);
  c ^= b, c -= rot(b, 14), a ^= c, a -= rot(c, 11), b ^= a, b -= rot(a, 25), c ^= b, c -= rot(b, 16);
  a ^= c, a -= rot(c, 4), b ^= a, b -= rot(a, 14), c ^= b, c -= rot(b, 24);
  return c;
}

std::uint32_t stored(const std::string& file, std::size_t at) { return word(reinterpret_cast<const unsigned char*>(file.data()) + at); }

}  // namespace

// A part begins with its signature. How long it is depends on much; the length is the one whose checksum is right.
std::vector<Checksummed> checksummed_parts(const std::string& file) {
  static constexpr const char* kSignatures[] = {"\x89HDF", "OHDR", "OCHK", "EAHD", "EAIB", "EASB", "EADB", "FAHD", "FADB",
                                                "BTHD",    "BTIN", "BTLF", "FRHP", "FHDB", "FHIB", "SMTB", "SMLI"};
  std::vector<Checksummed> parts;
  for (const char* signature : kSignatures) {
    for (std::size_t begin = file.find(signature); begin != std::string::npos; begin = file.find(signature, begin + 1)) {
      for (std::size_t size = 8; size <= kMostBytes && begin + size + 4 <= file.size(); ++size) {
        if (stored(file, begin + size) != lookup3(file, begin, size)) continue;
        parts.push_back({begin, size});
        break;
      }
    }
  }
  return parts;
}

std::string change_metadata(Random& random, std::string& file) {
  const std::vector<Checksummed> parts = checksummed_parts(file);
  if (parts.empty()) return "";
  const Checksummed part = random.of(parts);
  static constexpr std::uint64_t kNumbers[] = {0, 1, 2, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0xffffffff, 0x7fffffffffffffff, 0xffffffffffffffff};
  std::string story = fmt::format("metadata {:.4} at {} with its checksum:", file.substr(part.begin, 4), part.begin);
  for (std::size_t changes = 1 + random.below(3), i = 0; i < changes; ++i) {
    const std::size_t at = part.begin + 4 + random.below(part.size - 4);
    const std::size_t width = std::min(part.begin + part.size - at, std::size_t(1) << random.below(4));
    if (random.one_in(2)) {
      file[at] = char(file[at] ^ (1 << random.below(8)));
    } else {
      const std::uint64_t number = random.one_in(2) ? kNumbers[random.below(std::size(kNumbers))] : random.bits() >> random.below(64);
      std::memcpy(file.data() + at, &number, width);
    }
    story += fmt::format(" {}", at);
  }
  const std::uint32_t sum = lookup3(file, part.begin, part.size);
  std::memcpy(file.data() + part.begin + part.size, &sum, 4);
  return story;
}

}  // namespace af::fuzz
