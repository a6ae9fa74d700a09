// Megatron's layouts, written here number by number: every type, both formats, and every way in which the files may not fit.
#include "data/megatron_dataset.h"

#include <fstream>

#include "tests/data/corpus.h"

namespace af {
namespace {

struct Files {
  int type = 4;
  std::int64_t version = 1;
  std::vector<std::int64_t> ids, sizes, pointers, index;  // pointers empty: as they must be
  std::vector<std::int64_t> modes;
  std::string magic{"MMIDIDX\0\0", 9}, tail;
};

int width_of(int type) { return std::vector{0, 1, 1, 2, 4, 8, 8, 4, 2}[std::size_t(type)]; }

void put(std::string& out, std::int64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += char(std::uint64_t(value) >> (8 * i));
}

class Megatron : public testing::Test {
 protected:
  std::string write(const Files& files) {
    std::string bin, idx = files.magic;
    for (std::int64_t id : files.ids) put(bin, id, width_of(files.type));
    put(idx, files.version, 8);
    put(idx, files.type, 1);
    put(idx, std::int64_t(files.sizes.size()), 8);
    put(idx, std::int64_t(files.index.size()), 8);
    for (std::int64_t size : files.sizes) put(idx, size, 4);
    std::int64_t at = 0;
    for (std::size_t i = 0; i < files.sizes.size(); ++i) {
      put(idx, files.pointers.empty() ? at : files.pointers[i], 8);
      at += files.sizes[i] * width_of(files.type);
    }
    for (std::int64_t entry : files.index) put(idx, entry, 8);
    for (std::int64_t mode : files.modes) put(idx, mode, 1);
    return save(bin, idx + files.tail);
  }
  // sizes of sequence i: the numbers of dims[i]
  std::string write_legacy(const Files& files, const std::vector<std::vector<std::int64_t>>& dims, bool with_index, int element_bytes) {
    std::string bin, idx("TNTIDX\0\0", 8);
    for (std::int64_t id : files.ids) put(bin, id, width_of(files.type));
    std::vector<std::int64_t> head{1, files.type, element_bytes, std::int64_t(dims.size())}, dim_offsets{0}, data_offsets{0}, sizes;
    for (const std::vector<std::int64_t>& dim : dims) {
      std::int64_t elements = 1;
      for (std::int64_t size : dim) sizes.push_back(size), elements *= size;
      dim_offsets.push_back(std::int64_t(sizes.size()));
      data_offsets.push_back(data_offsets.back() + elements);
    }
    head.push_back(std::int64_t(sizes.size()));
    if (with_index) head.push_back(std::int64_t(files.index.size()));
    for (const std::vector<std::int64_t>* numbers : {&head, &dim_offsets, &data_offsets, &sizes}) {
      for (std::int64_t number : *numbers) put(idx, number, 8);
    }
    for (std::int64_t entry : files.index) {
      if (with_index) put(idx, entry, 8);
    }
    return save(bin, idx + files.tail);
  }
  std::string save(const std::string& bin, const std::string& idx) {
    std::ofstream(folder_ / "x.bin", std::ios::binary) << bin;
    std::ofstream(folder_ / "x.idx", std::ios::binary) << idx;
    return folder_ / "x";
  }
  static std::vector<std::vector<std::uint32_t>> read(const std::string& prefix, std::int64_t vocab_size = 1 << 20) {
    MegatronDataset dataset(prefix);
    std::vector<std::vector<std::uint32_t>> documents(std::size_t(dataset.num_documents()));
    for (std::vector<std::uint32_t>& document : documents) dataset.next(vocab_size, document);
    EXPECT_EQ(dataset.position(), stamp_of(dataset.bin_path()).bytes);
    return documents;
  }
  ScratchFolder folder_;
};

using Documents = std::vector<std::vector<std::uint32_t>>;

TEST_F(Megatron, EveryTypeInBothFormats) {
  std::mt19937_64 random(1);
  for (int type : {1, 2, 3, 4, 5, 8}) {
    const std::int64_t largest = type == 2 ? 127 : type == 1 ? 255 : type == 3 ? 32767 : type == 8 ? 65535 : (1 << 20) - 1;
    Files files;
    files.type = type;
    files.index = {0};
    Documents expected;
    std::vector<std::vector<std::int64_t>> dims;
    for (int document = 0; document < 20; ++document) {
      expected.emplace_back();
      for (std::size_t sequence = random() % 4; sequence > 0; --sequence) {
        files.sizes.push_back(std::int64_t(random() % 50));
        dims.push_back({files.sizes.back()});
        for (std::int64_t i = 0; i < files.sizes.back(); ++i) {
          files.ids.push_back(i == 0 ? largest : std::int64_t(random() % std::uint64_t(largest + 1)));
          expected.back().push_back(std::uint32_t(files.ids.back()));
        }
      }
      files.index.push_back(std::int64_t(files.sizes.size()));
    }
    const std::string prefix = write(files);
    EXPECT_EQ(read(prefix), expected) << type;
    EXPECT_EQ(read(prefix + ".bin"), expected);
    EXPECT_EQ(read(prefix + ".idx"), expected);
    files.modes.assign(files.sizes.size(), 0);
    files.modes[0] = 1;
    EXPECT_EQ(read(write(files)), expected);
    EXPECT_EQ(MegatronDataset(prefix).other_modes(), 1);
    EXPECT_EQ(read(write_legacy(files, dims, true, width_of(type))), expected);

    Documents by_sequence;  // the format before there was a document index
    std::size_t at = 0;
    for (std::int64_t size : files.sizes) {
      by_sequence.emplace_back(files.ids.begin() + std::ptrdiff_t(at), files.ids.begin() + std::ptrdiff_t(at) + size);
      at += std::size_t(size);
    }
    EXPECT_EQ(read(write_legacy(files, dims, false, width_of(type))), by_sequence);
  }
  Files square;
  square.ids = {1, 2, 3, 4, 5, 6, 7};
  square.index = {0, 2};
  EXPECT_EQ(read(write_legacy(square, {{2, 3}, {1}}, true, 4)), (Documents{{1, 2, 3, 4, 5, 6, 7}}));
}

TEST_F(Megatron, WhatDoesNotFitIsSaid) {
  auto complaint = [&](auto&& change) {
    Files files{4, 1, {1, 2, 3, 4, 5, 6}, {2, 1, 3}, {}, {0, 2, 3}, {}, {"MMIDIDX\0\0", 9}, ""};
    change(files);
    const std::string prefix = write(files);
    return complaint_of([&] { read(prefix, 100); });
  };
  auto expect = [&](auto&& change, const std::string& part) {
    const std::string text = complaint(change);
    EXPECT_NE(text.find(part), std::string::npos) << part << " in: " << text;
    EXPECT_NE(text.find("x."), std::string::npos) << text;
  };
  EXPECT_EQ(complaint([](Files&) {}), "");
  expect([](Files& f) { f.magic[0] = 'm'; }, "x.idx: begins neither with MMIDIDX nor with TNTIDX");
  expect([](Files& f) { f.version = 2; }, "x.idx: an index of version 2");
  expect([](Files& f) { f.type = 6; }, "elements of type 6, floating point");
  expect([](Files& f) { f.type = 7; }, "elements of type 7, floating point");
  expect([](Files& f) { f.sizes[1] = -1; }, "sequence 1 has the size -1");
  expect([](Files& f) { f.sizes[1] = 2; }, "x.bin: has 24 bytes; the index says 7 tokens of 4 bytes, 28");
  expect([](Files& f) { f.ids.push_back(7); }, "x.bin: has 28 bytes; the index says 6 tokens");
  expect([](Files& f) { f.pointers = {0, 4, 12}; }, "sequence 1 begins at byte 4, but those before it take 8 bytes");
  expect([](Files& f) { f.index = {0, 2}; }, "must run from 0 to the number of sequences, 3; it has 2 entries from 0 to 2");
  expect([](Files& f) { f.index = {1, 3}; }, "must run from 0");
  expect([](Files& f) { f.index = {}; }, "must run from 0 to the number of sequences, 3; it has 0 entries");
  expect([](Files& f) { f.index = {0, 2, 1, 3}; }, "document 1 is sequences 2 to 1 of 3");
  expect([](Files& f) { f.index = {0, 9, 3}; }, "document 0 is sequences 0 to 9 of 3");
  expect([](Files& f) { f.tail = "xy"; }, "the index ends within its modes");
  expect([](Files& f) { f.tail = "xxxxx"; }, "2 bytes are left after the index");
  expect([](Files& f) { f.ids[4] = 100; }, "x.bin: token 1 of document 1 is 100; the tokenizer has 100 ids");
  expect([](Files& f) { f.ids[0] = -1; }, "x.bin: token 0 of document 0 is -1");

  const Files whole{4, 1, {1, 2, 3, 4, 5, 6}, {2, 1, 3}, {}, {0, 2, 3}, {}, {"MMIDIDX\0\0", 9}, ""};
  const std::string prefix = write(whole);
  const auto size = std::filesystem::file_size(prefix + ".idx");
  for (std::uintmax_t cut = 0; cut < size; ++cut) {  // at every byte
    write(whole);
    std::filesystem::resize_file(prefix + ".idx", cut);
    EXPECT_NE(complaint_of([&] { read(prefix); }), "") << cut;
  }
  for (std::size_t at : {18u, 26u}) {  // counts beyond all bounds
    std::string big("MMIDIDX\0\0", 9);
    put(big, 1, 8), put(big, 4, 1), put(big, at == 18 ? -1 : 1, 8), put(big, -1, 8);
    EXPECT_NE(complaint_of([&] { read(save("", big)); }).find("in a file of"), std::string::npos);
  }
  std::filesystem::remove(prefix + ".bin");
  EXPECT_NE(complaint_of([&] { read(prefix); }).find("x.bin: cannot be read"), std::string::npos);
}

TEST_F(Megatron, LegacyThatDoesNotFit) {
  const Files files{4, 1, {1, 2, 3, 4, 5, 6}, {}, {}, {0, 2, 3}, {}, "", ""};
  const std::vector<std::vector<std::int64_t>> dims{{2}, {1}, {3}};
  EXPECT_EQ(read(write_legacy(files, dims, true, 4)), (Documents{{1, 2, 3}, {4, 5, 6}}));
  EXPECT_NE(complaint_of([&] { read(write_legacy(files, dims, true, 8)); }).find("elements of 8 bytes are not int32"), std::string::npos);
  const std::string prefix = write_legacy(files, dims, true, 4);
  const auto size = std::filesystem::file_size(prefix + ".idx");
  for (std::uintmax_t cut = 0; cut < size; ++cut) {
    write_legacy(files, dims, true, 4);
    std::filesystem::resize_file(prefix + ".idx", cut);
    EXPECT_NE(complaint_of([&] { read(prefix); }), "") << cut;
  }
  std::fstream idx;
  for (std::uintmax_t at = 8; at + 8 <= size; at += 8) {  // each number of the index in turn
    write_legacy(files, dims, true, 4);
    idx.open(prefix + ".idx", std::ios::binary | std::ios::in | std::ios::out);
    idx.seekp(std::streamoff(at)) << std::string(8, '\x7f');
    idx.close();
    EXPECT_NE(complaint_of([&] { read(prefix); }), "") << at;
  }
}

}  // namespace
}  // namespace af
