// Fast hashes (XXH3): checksums of what this program writes aside, identity of documents. Not against forgery.
#pragma once
#include <cstdint>
#include <string_view>

namespace af {

struct Hash128 {
  std::uint64_t low = 0, high = 0;
  bool operator==(const Hash128&) const = default;
};

std::uint64_t hash64(std::string_view bytes, std::uint64_t seed = 0);
Hash128 hash128(std::string_view bytes);

}  // namespace af
