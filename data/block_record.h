// What a block of input text became: documents as tokens, and what is to be said of its lines. As bytes it is one entry
// of the spool (data/spool.h), from which an interrupted run goes on.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/document.h"
#include "data/hash.h"
#include "data/text_blocks.h"

namespace af {

struct DocumentEntry {
  std::int64_t line = 0;               // of the source, from 1
  std::int64_t tokens = 0, roles = 0;  // how many are its own
  std::int64_t counted = -1;           // ranges that count as targets; -1: every token does
  std::int64_t licence = -1;           // in BlockRecord::licences; -1: the line names none
  Hash128 identity;                    // of its text (data/duplicates.h)
};

struct BlockRecord {
  static constexpr std::size_t kMostProblems = 20;  // whose text is kept

  std::int64_t source = 0, number = 0;
  std::int64_t lines = 0, text_bytes = 0, file_bytes = 0;
  bool last = false;
  std::string sha256;
  std::int64_t skipped = 0;  // lines that cannot be used
  std::vector<LineProblem> problems;
  std::vector<std::string> licences;

  std::vector<DocumentEntry> documents;
  std::vector<std::uint32_t> tokens;      // of all documents one after the other, likewise the others; no end-of-document token
  std::vector<RoleRun> roles;             // indices into the document's own tokens
  std::vector<TokenRange> counted;        // likewise
  std::vector<std::uint16_t> signatures;  // [documents, kSignature] (data/minhash.h); empty where near duplicates do not matter

  void clear() { *this = {}; }
};

// token_bytes: 2, 3 or 4, enough for every id.
std::string pack(const BlockRecord& record, int token_bytes);
BlockRecord unpack(std::string_view bytes);
int token_bytes_for(std::int64_t vocab_size);

}  // namespace af
