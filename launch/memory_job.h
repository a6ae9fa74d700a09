// One run of 'af_synth memory': files are read block by block into a memory, each block with the note how far its file has
// been read in one transaction. A new memory grows in X.part and is renamed when all is in; an existing one grows in place.
// Killed anywhere, the memory is whole, and the same command goes on after the last block.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "data/json.h"
#include "data/synthesis/memory_sources.h"

namespace af {

struct MemoryInput {
  SourceKind kind;
  TextSource file;
};

struct MemoryJobOptions {
  std::string output;
  bool append = false;
  std::vector<MemoryInput> inputs;
  std::string time, licence;  // of statements whose source says none; of all inputs
  std::int64_t max_line_bytes = 16 << 20;
  bool strict = false, terminal = false;
  // Reads documents in the place of the rules (data/synthesis/document_statements.h), where given.
  std::function<std::unique_ptr<StatementReader>(const std::string& file)> document_reader;
};

int run_memory_job(const MemoryJobOptions& options);  // the exit code

// What a memory was made of: X.manifest.json.
Json memory_manifest(Memory& memory, const std::string& file_name);

}  // namespace af
