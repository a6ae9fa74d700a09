// The checksummed parts of an HDF5 file's metadata (HDF5 File Format Specification, version 3): to damage these on purpose, and to
// put the checksums right again, so that the damage is read.
#pragma once
#include <string>
#include <vector>

#include "tests/fuzz/mutation.h"

namespace af::fuzz {

struct Checksummed {
  std::size_t begin, size;  // the checksum, 4 bytes, follows
};

std::vector<Checksummed> checksummed_parts(const std::string& file);
// Changes some bytes of one part and gives it the checksum that it then needs. What was done; "": there is no such part.
std::string change_metadata(Random& random, std::string& file);

}  // namespace af::fuzz
