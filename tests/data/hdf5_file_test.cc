#include "data/hdf5_file.h"

#include <fstream>
#include <numeric>

#include "tests/data/corpus.h"

namespace af {
namespace {

TEST(Hdf5File, EveryTypeAndRankThereAndBack) {
  ScratchFolder folder;
  const std::vector<H5Type> types{H5Type::u8,  H5Type::u16, H5Type::i32, H5Type::u32, H5Type::i64,
                                  H5Type::u64, H5Type::f32, H5Type::f64, H5Type::bf16};
  const std::vector<std::vector<std::int64_t>> shapes{{}, {5}, {3, 4}, {2, 3, 4}, {2, 3, 2, 5}, {0, 3}};
  auto bytes_of = [](H5Type type, const std::vector<std::int64_t>& shape) {
    std::vector<std::uint8_t> bytes(size_of(type) * std::size_t(std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>())));
    std::iota(bytes.begin(), bytes.end(), std::uint8_t(type));
    return bytes;
  };
  {
    H5File file = H5File::create(folder / "x.h5");
    for (H5Type type : types) {
      for (const auto& shape : shapes) {
        H5Dataset dataset =
            file.create_dataset(fmt::format("/{}_{}", name_of(type), shape.size() + (shape == shapes.back() ? 10 : 0)), type, shape);
        dataset.write(std::vector<std::int64_t>(shape.size(), 0), shape, type, bytes_of(type, shape).data());
      }
    }
    file.close();
  }
  H5File file = H5File::open(folder / "x.h5");
  EXPECT_TRUE(file.has("/bfloat16_2"));
  EXPECT_FALSE(file.has("/bfloat16_9"));
  for (H5Type type : types) {
    for (const auto& shape : shapes) {
      H5Dataset dataset = file.dataset(fmt::format("/{}_{}", name_of(type), shape.size() + (shape == shapes.back() ? 10 : 0)));
      EXPECT_EQ(dataset.shape(), shape);
      EXPECT_EQ(dataset.type(), type);
      std::vector<std::uint8_t> back(bytes_of(type, shape).size());
      dataset.read(std::vector<std::int64_t>(shape.size(), 0), shape, type, back.data());
      EXPECT_EQ(back, bytes_of(type, shape)) << name_of(type);
    }
  }
}

TEST(Hdf5File, RectanglesOfThreeDimensions) {
  ScratchFolder folder;
  H5File file = H5File::create(folder / "x.h5");
  H5Dataset dataset = file.create_dataset("/x", H5Type::i32, {4, 5, 6});
  std::vector<std::int32_t> all(120), part(2 * 3 * 2);
  std::iota(all.begin(), all.end(), 0);
  const std::vector<std::int64_t> begin{1, 2, 3}, count{2, 3, 2};
  dataset.write(std::vector<std::int64_t>{0, 0, 0}, dataset.shape(), H5Type::i32, all.data());
  dataset.read(begin, count, H5Type::i32, part.data());
  for (int i = 0, at = 0; i < 2; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 2; ++k) EXPECT_EQ(part[std::size_t(at++)], ((1 + i) * 5 + 2 + j) * 6 + 3 + k);
    }
  }
  std::fill(part.begin(), part.end(), -1);
  dataset.write(begin, count, H5Type::i32, part.data());
  dataset.read_rows(0, 4, H5Type::i32, all.data());
  EXPECT_EQ(std::count(all.begin(), all.end(), -1), 12);
  EXPECT_EQ(all[(1 * 5 + 2) * 6 + 3], -1);
  EXPECT_THROW(dataset.read_rows(3, 2, H5Type::i32, all.data()), InternalError);  // outside
  EXPECT_THROW(dataset.read_rows(0, 4, H5Type::f32, all.data()), InternalError);  // another type
}

TEST(Hdf5File, GrowsByRows) {
  ScratchFolder folder;
  H5File file = H5File::create(folder / "x.h5");
  std::vector<std::int64_t> rows(30), back(300);
  {
    H5Dataset dataset = file.create_dataset("/x", H5Type::i64, {0, 3}, {4, true, true});
    for (std::int64_t i = 0; i < 10; ++i) {
      std::iota(rows.begin(), rows.end(), 30 * i);
      dataset.append_rows(10, H5Type::i64, rows.data());
    }
  }
  H5Dataset dataset = file.dataset("/x");
  EXPECT_EQ(dataset.shape(), (std::vector<std::int64_t>{100, 3}));
  dataset.read_rows(0, 100, H5Type::i64, back.data());
  for (std::int64_t i = 0; i < 300; ++i) ASSERT_EQ(back[std::size_t(i)], i);
}

TEST(Hdf5File, Attributes) {
  ScratchFolder folder;
  const std::string longest(200'000, 'x');  // beyond what an object header holds
  {
    H5File file = H5File::create(folder / "x.h5");
    file.create_dataset("/d", H5Type::u8, {1});
    file.set_attribute("/", "text", std::string("gr\u00fc\u00dfe"));
    file.set_attribute("/", "text", std::string("again"));
    file.set_attribute("/d", "empty", std::string());
    file.set_attribute("/d", "long", longest);
    file.set_attribute("/d", "number", std::int64_t{-7'000'000'000});
    file.close();
  }
  H5File file = H5File::open(folder / "x.h5");
  EXPECT_EQ(file.string_attribute("/", "text"), "again");
  EXPECT_EQ(file.string_attribute("/d", "empty"), "");
  EXPECT_EQ(file.string_attribute("/d", "long"), longest);
  EXPECT_EQ(file.integer_attribute("/d", "number"), -7'000'000'000);
  EXPECT_TRUE(file.has_attribute("/d", "number"));
  EXPECT_FALSE(file.has_attribute("/", "number"));
  EXPECT_NE(complaint_of([&] { file.integer_attribute("/d", "long"); }).find("'long' is not an integer"), std::string::npos);
  EXPECT_NE(complaint_of([&] { file.string_attribute("/d", "number"); }).find("'number' is not text"), std::string::npos);
  EXPECT_NE(complaint_of([&] { file.string_attribute("/", "none"); }).find("no attribute 'none'"), std::string::npos);
}

TEST(Hdf5File, OneMessageThatNamesTheFile) {
  ScratchFolder folder;
  std::ofstream(folder / "garbage.h5") << "not HDF5";
  std::ofstream(folder / "nothing.h5");
  auto expect = [&](const std::string& name, const std::string& part) {
    std::string text = complaint_of([&] { H5File::open(folder / name).dataset("/x"); });
    EXPECT_NE(text.find(name + ": "), std::string::npos) << text;
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  expect("garbage.h5", "not an HDF5 file");
  expect("nothing.h5", "not an HDF5 file");
  expect("absent.h5", "No such file");
  for (const char version : {0, 1, 2, 3}) {  // up to 2, as h5py writes by default: no checksums of the metadata
    std::ofstream(folder / "old.h5", std::ios::binary) << std::string("\x89HDF\r\n\x1a\n") + version + std::string(2000, '\0');
    EXPECT_EQ(H5File::has_checksums(folder / "old.h5"), version == 3);
  }
  H5File::create(folder / "bare.h5").close();
  expect("bare.h5", "no readable dataset '/x'");
  EXPECT_NE(complaint_of([&] { H5File::create(folder / "no/such/folder.h5"); }).find("No such file or directory"), std::string::npos);
}

}  // namespace
}  // namespace af
