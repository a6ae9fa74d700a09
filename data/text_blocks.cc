#include "data/text_blocks.h"

#include <cstring>

namespace af {
namespace {

constexpr std::size_t kPieceBytes = 1 << 18;

}  // namespace

BlockReader::BlockReader(const TextSource& source, std::int64_t index, std::int64_t max_line_bytes)
    : source_(source),
      index_(index),
      max_line_bytes_(max_line_bytes),
      file_(source.name),
      stream_(open_stream(file_, compression_of(source.name))),
      piece_(kPieceBytes) {}

// Appends to the block; false at the end of the file, which the block then knows.
bool BlockReader::read_piece(TextBlock& block) {
  std::size_t n = 0;
  try {
    n = stream_->read(piece_.data(), piece_.size());
  } catch (const DamagedData& damage) {
    block.problems.push_back({block.first_line + block.lines, fmt::format("{}; the file is read up to here", damage.what())});
    while (file_.read(piece_.data(), piece_.size()) > 0) {
    }
    damaged_ = true;
  }
  const bool mark = block.number == 0 && block.text_bytes == 0 && std::string_view(piece_.data(), n).starts_with("\xef\xbb\xbf");
  block.text.append(piece_.data() + 3 * mark, n - 3 * mark);
  block.text_bytes += std::int64_t(n);
  block.last = n == 0;
  return n > 0;
}

void BlockReader::next(TextBlock& block) {
  block = {};
  block.source = index_, block.number = number_++, block.first_line = line_;
  block.text.swap(carried_);
  block.text_bytes = std::int64_t(block.text.size());
  const std::size_t most = std::size_t(max_line_bytes_);
  std::size_t begin = 0, scanned = 0;  // of the unfinished line; no line ends in [begin, scanned)
  std::size_t dropped = 0;             // bytes of the unfinished line that have been thrown away
  const auto too_long = [&](std::size_t bytes) {
    return LineProblem{block.first_line + block.lines, fmt::format("{} {} bytes, more than the {} of --max-line-bytes",
                                                                   source_.lines ? "the line has" : "the file has", bytes, max_line_bytes_)};
  };
  const auto end_line = [&](std::size_t end) {  // [begin, end) is the line's rest
    if (dropped + (end - begin) > most) {
      block.problems.push_back(too_long(dropped + (end - begin)));
      block.text.erase(begin, end - begin);
      end = begin;
    }
    dropped = 0;
    ++block.lines;
    return end;
  };
  for (;;) {
    while (source_.lines && begin < block.text.size()) {
      const char* from = block.text.data() + std::max(begin, scanned);
      const void* found = std::memchr(from, '\n', block.text.size() - std::max(begin, scanned));
      if (!found) break;
      begin = scanned = end_line(std::size_t(static_cast<const char*>(found) - block.text.data())) + 1;
      if (begin >= kBlockBytes) break;
    }
    if (source_.lines && begin >= kBlockBytes) {
      carried_.assign(block.text, begin);
      block.text.resize(begin);
      block.text_bytes -= std::int64_t(carried_.size());
      break;
    }
    scanned = block.text.size();
    if (block.text.size() - begin > most) {  // too long already: its bytes are only counted from here on
      dropped += block.text.size() - begin;
      block.text.resize(begin);
      scanned = begin;
    }
    if (!read_piece(block)) {
      if (damaged_) block.text.resize(begin), dropped = 0;  // the line that the damage cut
      if (block.text.size() > begin || dropped > 0) end_line(block.text.size());
      break;
    }
  }
  line_ += block.lines;
  block.file_bytes = file_.position();
  block.sha256 = file_.sha256();
  if (block.last && stamp_of(source_.name) != source_.stamp) user_error("{}: was changed while it was read", source_.name);
}

}  // namespace af
