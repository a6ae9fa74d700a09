// Files become blocks of whole lines: compared with a naive split, plain and compressed, whatever the sizes.
#include "data/text_blocks.h"

#include <zlib.h>
#include <zstd.h>

#include <fstream>

#include "data/sha256.h"
#include "tests/data/corpus.h"

namespace af {
namespace {

std::string gzip(const std::string& text) {
  z_stream state{};
  EXPECT_EQ(deflateInit2(&state, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&state, text.size()) + 64, '\0');
  state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data())), state.avail_in = uInt(text.size());
  state.next_out = reinterpret_cast<Bytef*>(out.data()), state.avail_out = uInt(out.size());
  EXPECT_EQ(deflate(&state, Z_FINISH), Z_STREAM_END);
  out.resize(state.total_out);
  deflateEnd(&state);
  return out;
}

std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 1));
  return out;
}

class TextBlocks : public testing::Test {
 protected:
  TextSource source(const std::string& name, const std::string& contents, bool lines = true) {
    const std::string path = folder_ / name;
    std::ofstream(path, std::ios::binary) << contents;
    return {path, lines, stamp_of(path)};
  }
  static std::vector<TextBlock> blocks(const TextSource& source, std::int64_t max_line_bytes = 16 << 20) {
    BlockReader reader(source, 3, max_line_bytes);
    std::vector<TextBlock> all;
    do {
      reader.next(all.emplace_back());
    } while (!all.back().last);
    return all;
  }
  ScratchFolder folder_;
};

// What every sequence of blocks keeps, whatever is in the file.
void expect_consistent(const std::vector<TextBlock>& blocks, std::int64_t text_bytes, const std::string& file) {
  std::int64_t line = 1, sum = 0;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_EQ(blocks[i].source, 3);
    EXPECT_EQ(blocks[i].number, std::int64_t(i));
    EXPECT_EQ(blocks[i].first_line, line);
    EXPECT_EQ(blocks[i].last, i + 1 == blocks.size());
    EXPECT_EQ(std::count(blocks[i].text.begin(), blocks[i].text.end(), '\n') + (!blocks[i].text.empty() && blocks[i].text.back() != '\n'),
              blocks[i].lines);
    if (!blocks[i].last) {
      EXPECT_EQ(blocks[i].text.back(), '\n');
    }
    EXPECT_EQ(blocks[i].sha256, sha256_hex(std::string_view(file).substr(0, std::size_t(blocks[i].file_bytes))));
    line += blocks[i].lines;
    sum += blocks[i].text_bytes;
  }
  EXPECT_EQ(sum, text_bytes);
  EXPECT_EQ(blocks.back().file_bytes, std::int64_t(file.size()));
}

std::string joined(const std::vector<TextBlock>& blocks) {
  std::string text;
  for (const TextBlock& block : blocks) text += block.text;
  return text;
}

TEST_F(TextBlocks, PlainGzipAndZstdAreTheSameText) {
  std::mt19937 random(1);
  for (std::size_t size : {0u, 1u, 1000u, (1u << 18) - 1, 1u << 18, (1u << 20) + 1, 5'000'000u}) {
    std::string text;
    while (text.size() < size) text += std::string(random() % 3 == 0 ? 0 : random() % 5000, char('a' + random() % 26)) + "\n";
    text.resize(size);
    if (size > 0 && random() % 2) text.back() = 'x';  // the last line is not ended
    const std::string half = text.substr(0, size / 2), rest = text.substr(size / 2);
    const std::vector<std::pair<std::string, std::string>> files{
        {"a.jsonl", text}, {"a.jsonl.gz", gzip(text)}, {"b.jsonl.gz", gzip(half) + gzip(rest)}, {"a.jsonl.zst", zstd(half) + zstd(rest)}};
    std::vector<std::string> ends;  // of the first file's blocks
    for (const auto& [name, contents] : files) {
      const std::vector<TextBlock> all = blocks(source(name, contents));
      EXPECT_EQ(joined(all), text) << name;
      expect_consistent(all, std::int64_t(size), contents);
      std::vector<std::string> texts;
      for (const TextBlock& block : all) texts.push_back(sha256_hex(block.text));
      if (ends.empty()) ends = texts;
      EXPECT_EQ(texts, ends) << name << ": where blocks end depends on the text alone";
    }
    if (size == 5'000'000u) {
      EXPECT_GE(ends.size(), 4u);
    }
  }
}

TEST_F(TextBlocks, LongLinesAreCountedAndLeftOut) {
  std::mt19937 random(2);
  for (int round = 0; round < 20; ++round) {
    const std::int64_t most = round % 2 ? 5000 : 700'000;
    std::string text, kept;
    std::vector<std::string> problems;
    const int lines = 1 + int(random() % 60);
    for (int i = 1; i <= lines; ++i) {
      std::int64_t size = random() % 4 == 0   ? most + std::int64_t(random() % 3) - 1
                          : random() % 4 == 0 ? std::int64_t(random() % 3'000'000)
                                              : std::int64_t(random() % 100);
      const std::string line(std::size_t(size), 'x'), end = i == lines && random() % 2 ? "" : "\n";
      text += line + end;
      kept += (size > most ? "" : line) + end;
      if (size > most) problems.push_back(fmt::format("{}: the line has {} bytes, more than the {} of --max-line-bytes", i, size, most));
    }
    const std::vector<TextBlock> all = blocks(source("a.jsonl", text), most);
    std::vector<std::string> found;
    for (const TextBlock& block : all) {
      for (const LineProblem& problem : block.problems) found.push_back(fmt::format("{}: {}", problem.line, problem.what));
      EXPECT_LE(block.text.size(), BlockReader::kBlockBytes + std::size_t(most) + 1);
    }
    EXPECT_EQ(found, problems);
    EXPECT_EQ(joined(all), kept);
  }
}

TEST_F(TextBlocks, DamagedFilesEndWhereTheyAreDamaged) {
  std::string text;
  for (int i = 0; i < 200'000; ++i) text += fmt::format("line {} {}\n", i, (i * 7919LL) % 1000003);
  for (const auto& [name, whole] : {std::pair<std::string, std::string>{"a.jsonl.gz", gzip(text)}, {"a.jsonl.zst", zstd(text)}}) {
    auto expect_beginning = [&](const std::string& file, const std::string& reason) {
      const std::vector<TextBlock> all = blocks(source(name, file));
      const std::string read = joined(all);
      EXPECT_LE(read.size(), text.size());
      EXPECT_EQ(read, text.substr(0, read.size())) << name;
      ASSERT_EQ(all.back().problems.size(), 1u) << name;
      EXPECT_NE(all.back().problems[0].what.find(reason), std::string::npos) << all.back().problems[0].what;
      EXPECT_EQ(all.back().file_bytes, std::int64_t(file.size()));
      EXPECT_EQ(all.back().sha256, sha256_hex(file));
    };
    for (std::size_t size : {whole.size() - 1, whole.size() / 2, std::size_t{11}}) expect_beginning(whole.substr(0, size), "data end too early");
    expect_beginning("not compressed\n", "data are damaged");
    std::string flipped = whole;
    for (std::size_t i = flipped.size() / 2; i < flipped.size() / 2 + 40; ++i) flipped[i] = char(~flipped[i]);
    const std::vector<TextBlock> all = blocks(source(name, flipped));  // zstd without a checksum may not notice; nothing else may happen
    if (name == "a.jsonl.gz") {
      EXPECT_EQ(all.back().problems.size(), 1u);
    }
  }
}

TEST_F(TextBlocks, WholeFilesMarksAndChanges) {
  std::vector<TextBlock> all = blocks(source("a.txt", "\xef\xbb\xbfone\ntwo\n", false));
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].text, "one\ntwo\n");
  all = blocks(source("b.txt", std::string(3'000'000, 'x'), false));
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].text.size(), 3'000'000u);
  all = blocks(source("c.txt", std::string(3'000'000, 'x'), false), 2'999'999);
  EXPECT_EQ(all[0].text, "");
  EXPECT_NE(all[0].problems.at(0).what.find("the file has 3000000 bytes"), std::string::npos);
  EXPECT_EQ(joined(blocks(source("d.jsonl", "\xef\xbb\xbf{}\n\xef\xbb\xbf{}\n"))), "{}\n\xef\xbb\xbf{}\n");

  TextSource changing = source("e.jsonl", "{}\n");
  std::ofstream(folder_ / "e.jsonl", std::ios::app) << "{}\n";
  EXPECT_NE(complaint_of([&] { blocks(changing); }).find("e.jsonl: was changed while it was read"), std::string::npos);
  EXPECT_NE(complaint_of([&] { stamp_of(folder_ / "none"); }).find("cannot be read: No such file"), std::string::npos);
  EXPECT_NE(complaint_of([&] { stamp_of(folder_ / "."); }).find("is a folder"), std::string::npos);
}

TEST(Sha256, TheSameInAnyPieces) {
  const std::string million(1'000'000, 'a');
  EXPECT_EQ(sha256_hex(million), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  std::mt19937 random(3);
  for (int round = 0; round < 20; ++round) {
    Sha256 hash;
    for (std::string_view rest = million; !rest.empty();) {
      const std::size_t n = std::min<std::size_t>(rest.size(), 1 + random() % (round < 10 ? 200 : 100'000));
      hash.update(rest.substr(0, n));
      rest.remove_prefix(n);
    }
    EXPECT_EQ(hash.hex(), sha256_hex(million));
  }
}

}  // namespace
}  // namespace af
