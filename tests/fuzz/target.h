// What is fuzzed: a reader, valid files for it, and what it may do with damaged ones.
#pragma once
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/fuzz/mutation.h"

namespace af::fuzz {

// The reader took the files, and what it gives is not what the target's rule allows.
struct SilentDamage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Target {
  std::string name;
  std::string rule;  // of what is read without an error
  std::vector<Files> corpus;
  // Reads the files of a folder to their end and describes everything it got. UserError where they are damaged.
  std::function<std::string(const std::string& folder)> read;
  bool exact = false;          // the format has checksums: what is read must be what one of the corpus holds
  bool library = false;        // reads through HDF5
  bool fix_checksums = false;  // of HDF5's metadata: damage by intent
};

std::vector<Target> data_targets();       // targets_data.cc
std::vector<Target> synthesis_targets();  // targets_synthesis.cc
std::vector<Target> launch_targets();     // targets_launch.cc
Target checkpoint_target();               // target_checkpoint.cc

Files read_files(const std::string& folder);                      // with those of folders below it: "a/b.h5"
void write_files(const std::string& folder, const Files& files);  // the folder is emptied first
std::string scratch_folder();                                     // of this process, made when it is not there

}  // namespace af::fuzz
