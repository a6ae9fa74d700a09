// What an interrupted run left behind: every place at which it can be cut, every byte that can be wrong.
#include "data/spool.h"

#include <fstream>

#include "data/block_record.h"
#include "data/file.h"
#include "data/packed_bytes.h"
#include "tests/data/corpus.h"

namespace af {
namespace {

void put(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes; }

std::vector<std::string> entries_of(Spool& spool) {
  std::vector<std::string> all;
  for (std::string entry; spool.next(entry);) all.push_back(entry);
  return all;
}

TEST(Spool, GoesOnFromEveryPlace) {
  ScratchFolder folder;
  const std::string path = folder / "x.part";
  const std::vector<std::string> entries{"header", "", "second", std::string(90, 'z')};
  {
    Spool spool(path);
    EXPECT_TRUE(entries_of(spool).empty());
    for (const std::string& entry : entries) spool.append(entry);
  }
  const std::string whole = read_file(path);
  std::vector<std::size_t> ends{8};
  for (const std::string& entry : entries) ends.push_back(ends.back() + 16 + entry.size());
  ASSERT_EQ(ends.back(), whole.size());
  for (std::size_t size = 0; size <= whole.size(); ++size) {
    const std::size_t kept = std::size_t(std::upper_bound(ends.begin() + 1, ends.end(), size) - ends.begin() - 1);
    put(path, whole.substr(0, size));
    {
      Spool spool(path);
      ASSERT_EQ(entries_of(spool), std::vector<std::string>(entries.begin(), entries.begin() + std::ptrdiff_t(kept))) << size;
      for (std::size_t i = kept; i < entries.size(); ++i) spool.append(entries[i]);
    }
    ASSERT_EQ(read_file(path), whole) << "cut at " << size;
  }
  for (std::size_t at = 8; at < whole.size(); at += at < 80 ? 1 : 37) {  // a byte that the disk did not keep
    std::string wrong = whole;
    wrong[at] = char(wrong[at] ^ 0x10);
    put(path, wrong);
    Spool spool(path);
    const std::size_t kept = std::size_t(std::upper_bound(ends.begin(), ends.end(), at) - ends.begin() - 1);
    ASSERT_EQ(entries_of(spool).size(), kept) << at;
  }
}

TEST(Spool, RefusesOthersFilesAndOtherProcesses) {
  ScratchFolder folder;
  put(folder / "x.part", "my own file, of some length");
  EXPECT_NE(complaint_of([&] { Spool spool(folder / "x.part"); }).find("x.part: is in the way"), std::string::npos);
  EXPECT_EQ(read_file(folder / "x.part"), "my own file, of some length");
  Spool first(folder / "y.part");
  EXPECT_NE(complaint_of([&] { Spool second(folder / "y.part"); }).find("y.part: another process is writing"), std::string::npos);
  EXPECT_NE(complaint_of([&] { Spool spool(folder / "none" + "/y.part"); }).find("cannot be created: No such file"), std::string::npos);
  EXPECT_THROW(first.append("before it was read"), InternalError);
}

TEST(BlockRecord, ThereAndBack) {
  std::mt19937_64 random(4);
  for (std::int64_t vocab_size : {288, 1 << 16, 151'936, 1 << 24, INT32_MAX}) {
    for (int round = 0; round < 20; ++round) {
      BlockRecord record;
      auto some = [&](std::size_t most) { return round == 0 ? 0 : random() % (most + 1); };
      record.source = 7, record.number = std::int64_t(random() % 1000), record.last = round % 2, record.sha256 = "abc";
      record.lines = 5, record.text_bytes = 6, record.file_bytes = 8, record.skipped = 9;
      for (std::size_t i = some(3); i > 0; --i) record.problems.push_back({std::int64_t(i), std::string(some(50), '\n')});
      for (std::size_t i = some(3); i > 0; --i) record.licences.push_back(std::string(some(50), 'l'));
      for (std::size_t i = some(20); i > 0; --i) record.documents.push_back({1, 2, 3, std::int64_t(i) - 2, -1, {random(), random()}});
      for (std::size_t i = some(20); i > 0; --i) record.roles.push_back({std::int64_t(i), std::int64_t(i) + 5, Role(i % 9)});
      for (std::size_t i = some(20); i > 0; --i) record.counted.push_back({std::int64_t(i), std::int64_t(i) * 3});
      for (std::size_t i = some(300); i > 0; --i) record.signatures.push_back(std::uint16_t(random()));
      for (std::size_t i = some(1000); i > 0; --i) record.tokens.push_back(std::uint32_t(random() % std::uint64_t(vocab_size)));
      const int width = token_bytes_for(vocab_size);
      const std::string bytes = pack(record, width);
      const BlockRecord back = unpack(bytes);
      EXPECT_EQ(back.tokens, record.tokens);
      EXPECT_EQ(back.roles, record.roles);
      EXPECT_EQ(back.counted, record.counted);
      EXPECT_EQ(back.signatures, record.signatures);
      EXPECT_EQ(back.licences, record.licences);
      EXPECT_EQ(back.documents.size(), record.documents.size());
      EXPECT_EQ(pack(back, width), bytes) << "and with it all other fields";
      if (round > 0) {
        for (std::size_t cut : {std::size_t{1}, bytes.size() / 2, bytes.size() - 1}) {
          EXPECT_THROW(unpack(std::string_view(bytes).substr(0, cut)), InternalError);
        }
        EXPECT_THROW(unpack(bytes + "x"), InternalError);
      }
    }
  }
  EXPECT_EQ(token_bytes_for(288), 2);
  EXPECT_EQ(token_bytes_for((1 << 16) + 1), 3);
  EXPECT_EQ(token_bytes_for((1 << 24) + 1), 4);
}

}  // namespace
}  // namespace af
