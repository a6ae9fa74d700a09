// Reads a token dataset of which nothing is known in a child process. HDF5's own library can crash, loop or ask for any amount of
// memory where a file's metadata are damaged and their checksums are not (files made so by intent); no check before it reads the
// file can know that. What happens to the child is a problem of the file, with a message like the others.
//
// Training needs one only for files without checksums of their metadata (H5File::has_checksums): where they have, no accident gets that far.
#pragma once
#include <string>
#include <vector>

namespace af {

// problems_of_dataset(), and what a file that cannot be opened says; empty: whole. The child is given up after `seconds`.
// The process must have no other threads.
std::vector<std::string> problems_in_child(const std::string& path, int seconds);

// Long enough for reading the file from a slow disk.
int seconds_to_read(const std::string& path);

}  // namespace af
