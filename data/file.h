// Small text files as a whole, and folders.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace af {

std::string read_file(const std::string& path);                        // UserError where it cannot be read
void write_file(const std::string& path, std::string_view contents);  // on the disk (fsync) when it returns; UserError where not
void make_folder(const std::string& path);        // and those above it; may be there; UserError where it cannot be
void make_empty_folder(const std::string& path);  // likewise, without what was in it
// Whether a file can come to be at `path`, asked before the work: UserError where its folder is missing, or where there is a folder, a device (the
// new file would take its place) or one of `inputs`. "" is nothing to write.
void check_output(const std::string& path, const std::vector<std::string>& inputs = {});
// A folder's entries (a rename in it) are on the disk when it returns.
void sync_folder(const std::string& path);

}  // namespace af
