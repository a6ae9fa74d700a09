// Input files cut into blocks of whole lines, the unit of work of 'af_data tokenize'. Where a block ends depends on the
// text alone. Memory: two blocks and the longest line.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "data/byte_stream.h"

namespace af {

struct TextSource {
  std::string name;   // as the user gave it
  bool lines = true;  // JSON lines; else the whole file is one document
  FileStamp stamp;    // when the work began
};

struct LineProblem {
  std::int64_t line;  // from 1
  std::string what;
};

struct TextBlock {
  std::int64_t source = 0, number = 0;  // of the file, of the block in it
  std::int64_t first_line = 1, lines = 0;
  std::string text;  // lines that cannot be read are empty
  std::vector<LineProblem> problems;
  std::int64_t text_bytes = 0;  // with those of the lines that cannot be read
  std::int64_t file_bytes = 0;  // of the file that have been read up to the block's end
  std::string sha256;           // of these
  bool last = false;            // of the file
};

class BlockReader {
 public:
  static constexpr std::size_t kBlockBytes = 1 << 20;  // a block ends with the first line that reaches it

  BlockReader(const TextSource& source, std::int64_t index, std::int64_t max_line_bytes);
  // The next block; one block at least, an empty file's is empty. A line (or a document that is a whole file) above
  // max_line_bytes is a problem, and so is what cannot be decompressed: the file ends with the line before. UserError where the file is
  // not what it was when the work began.
  void next(TextBlock& block);

 private:
  bool read_piece(TextBlock& block);

  const TextSource& source_;
  std::int64_t index_, max_line_bytes_;
  InputFile file_;
  std::unique_ptr<ByteStream> stream_;
  std::vector<char> piece_;
  std::string carried_;  // the beginning of the next block
  std::int64_t number_ = 0, line_ = 1;
  bool damaged_ = false;
};

}  // namespace af
