// Small text files as a whole.
#pragma once
#include <string>
#include <string_view>

namespace af {

std::string read_file(const std::string& path);                        // UserError where it cannot be read
void write_file(const std::string& path, std::string_view contents);  // on the disk (fsync) when it returns; UserError where not
// A folder's entries (a rename in it) are on the disk when it returns.
void sync_folder(const std::string& path);

}  // namespace af
