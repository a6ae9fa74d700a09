// safetensors: the bytes of a written file, every way in which a header can lie, and folders of shards.
#include "data/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include "core/error.h"

namespace af {
namespace {

namespace fs = std::filesystem;

class Safetensors : public testing::Test {
 protected:
  void SetUp() override {
    folder = fs::path(testing::TempDir()) / ("safetensors_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(folder);
    fs::create_directories(folder);
  }
  void TearDown() override { fs::remove_all(folder); }

  std::string path(const std::string& name = "t.safetensors") const { return (folder / name).string(); }
  void put(const std::string& bytes, const std::string& name = "t.safetensors") const { std::ofstream(path(name), std::ios::binary) << bytes; }
  static std::string file_of(const std::string& header, std::size_t data_bytes) {
    std::string bytes(8, '\0');
    for (int i = 0; i < 8; i++) bytes[i] = char(header.size() >> 8 * i);
    return bytes + header + std::string(data_bytes, 'x');
  }
  static std::string get(const std::string& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  // The message of opening such a file; "" where it is accepted.
  std::string error_of(const std::string& header, std::size_t data_bytes) const {
    put(file_of(header, data_bytes));
    return error([&] { SafetensorsFile file(path()); });
  }
  static std::string error(const std::function<void()>& function) {
    try {
      function();
    } catch (const UserError& e) {
      return e.what();
    }
    return "";
  }
  static void write_one(const std::string& file, const std::string& name, const std::vector<float>& values) {
    SafetensorsWriter writer(file, {{name, "F32", {std::int64_t(values.size())}}}, {});
    writer.write(writer.tensors()[0], 0, writer.tensors()[0].bytes(), values.data());
    writer.finish();
  }
  fs::path folder;
};

TEST_F(Safetensors, WritesTheFormatByteForByte) {
  {
    SafetensorsWriter writer(path(), {{"b", "F32", {2}}, {"scalar", "BF16", {}}, {"a", "F32", {1, 2}}, {"none", "F32", {0, 3}}}, {{"format", "pt"}});
    EXPECT_FALSE(fs::exists(path()));
    for (const SafetensorsInfo& info : writer.tensors())
      for (std::int64_t i = 0; i < info.bytes(); i++) writer.write(info, i, 1, &info.name[0]);
    writer.finish();
  }
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},)"
      R"("none":{"dtype":"F32","shape":[0,3],"data_offsets":[16,16]},"scalar":{"dtype":"BF16","shape":[],"data_offsets":[16,18]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(get(path()), file_of(padded, 0) + "aaaaaaaabbbbbbbbss");
  EXPECT_FALSE(fs::exists(path() + ".partial"));

  const SafetensorsFile file(path());
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.tensors().size(), 4u);
  const SafetensorsInfo* b = file.find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->numel(), 2);
  char two[3] = {};
  file.read(*b, 6, 2, two);
  EXPECT_STREQ(two, "bb");
  EXPECT_EQ(file.find("scalar")->numel(), 1);
  EXPECT_EQ(file.find("c"), nullptr);
}

TEST_F(Safetensors, LeavesNothingOfAnUnfinishedFile) {
  { SafetensorsWriter writer(path(), {{"a", "F32", {2}}}, {}); }
  EXPECT_TRUE(fs::is_empty(folder));
  SafetensorsWriter writer(path(), {{"a", "F32", {2}}}, {});
  const float value = 1;
  writer.write(writer.tensors()[0], 0, 4, &value);
  EXPECT_THROW(writer.finish(), InternalError);  // 4 of 8 bytes
}

TEST_F(Safetensors, RefusesAHeaderThatDoesNotFitTheFile) {
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}})";
  EXPECT_EQ(error_of(good, 16), "");
  EXPECT_NE(error_of(good, 15).find("truncated"), std::string::npos);
  EXPECT_NE(error_of(good, 17).find("describes 16 bytes of data, the file has 17"), std::string::npos);
  EXPECT_EQ(error_of("{}", 0), "");
  struct Case {
    const char *header, *message;
  };
  const Case cases[] = {
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,16]}})", "needs 8 bytes, data_offsets hold 16"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})", "there is a gap"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[3],"data_offsets":[4,16]}})", "they overlap"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", "they overlap"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}})", "more than 2^63"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", "more than 2^63"},
      {R"({"a":{"dtype":"F32","shape":[-2,-2],"data_offsets":[0,16]}})", "a dimension cannot be -2"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}})", "is no range"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}})", "is no range"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,18446744073709551615]}})", "expected an integer"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0]}})", "expected [begin, end]"},
      {R"({"a":{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}})", "expected an integer"},
      {R"({"a":{"dtype":"F31","shape":[4],"data_offsets":[0,16]}})", "unknown dtype \"F31\""},
      {R"({"a":{"shape":[4],"data_offsets":[0,16]}})", "has no \"dtype\""},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})", "occurs twice"},
      {R"({"__metadata__":{"n":1},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", "expected a string"},
      {R"([])", "expected an object"},
      {R"({"a":)", "(header):1:"},
  };
  for (const Case& c : cases) {
    const std::string message = error_of(c.header, 16);
    EXPECT_NE(message.find(c.message), std::string::npos) << c.header << " -> " << message;
    EXPECT_EQ(message.find(path()), 0u) << message;
  }
}

TEST_F(Safetensors, RefusesFilesThatAreNone) {
  put("abc");
  EXPECT_NE(error([&] { SafetensorsFile file(path()); }).find("has 3 bytes"), std::string::npos);
  put(std::string(8, '\xff') + "{}");
  EXPECT_NE(error([&] { SafetensorsFile file(path()); }).find("beyond 100000000"), std::string::npos);
  put(std::string("\x10\0\0\0\0\0\0\0{}", 10));
  EXPECT_NE(error([&] { SafetensorsFile file(path()); }).find("truncated"), std::string::npos);
  EXPECT_NE(error([&] { SafetensorsFile file(path("no")); }).find("cannot be opened"), std::string::npos);
  EXPECT_NE(error([&] { SafetensorsFile file(folder.string()); }).find("is not a file"), std::string::npos);
}

// Whatever byte of the file is wrong or missing, the answer is a UserError or a file whose ranges lie within it.
TEST_F(Safetensors, EveryTruncationAndChangedByteIsHandled) {
  write_one(path(), "name", {1, 2, 3});
  const std::string good = get(path());
  for (std::size_t size = 0; size < good.size(); size++) {
    put(good.substr(0, size), "cut");
    EXPECT_NE(error([&] { SafetensorsFile file(path("cut")); }), "") << size;
  }
  for (std::size_t i = 0; i < good.size(); i++) {
    for (const char c : {'\0', '9', '}', '\xff'}) {
      std::string bad = good;
      bad[i] = c;
      put(bad, "bad");
      error([&] {
        SafetensorsFile file(path("bad"));
        for (const SafetensorsInfo& info : file.tensors()) {
          std::string bytes(std::size_t(info.bytes()), '\0');
          file.read(info, 0, info.bytes(), bytes.data());
        }
      });
    }
  }
}

TEST_F(Safetensors, FolderOfShardsMustAgreeWithItsIndex) {
  EXPECT_NE(error([&] { SafetensorsFolder f(folder.string()); }).find("has neither"), std::string::npos);
  write_one(path("one.safetensors"), "a", {1});
  write_one(path("two.safetensors"), "b", {2});
  const auto index = [&](const std::string& map) {
    put("{\"metadata\":{\"total_size\":8},\"weight_map\":{" + map + "}}", "model.safetensors.index.json");
  };
  index(R"("a":"one.safetensors","b":"two.safetensors")");
  {
    const SafetensorsFolder opened(folder.string());
    ASSERT_EQ(opened.tensors().size(), 2u);
    float value = 0;
    const SafetensorsFolder::Entry& b = opened.tensors().at("b");
    b.file->read(*b.info, 0, 4, &value);
    EXPECT_EQ(value, 2);
  }
  index(R"("a":"one.safetensors","b":"one.safetensors")");
  EXPECT_NE(error([&] { SafetensorsFolder f(folder.string()); }).find("b should be in one.safetensors but is not there"), std::string::npos);
  index(R"("a":"one.safetensors","b":"two.safetensors","c":"two.safetensors")");
  EXPECT_NE(error([&] { SafetensorsFolder f(folder.string()); }).find("c should be in two.safetensors"), std::string::npos);
  write_one(path("two.safetensors"), "a", {2});
  index(R"("a":"one.safetensors","b":"two.safetensors")");
  EXPECT_NE(error([&] { SafetensorsFolder f(folder.string()); }).find("holds a, which model.safetensors.index.json places in one"),
            std::string::npos);
  index(R"("a":"one.safetensors","b":"three.safetensors")");
  EXPECT_NE(error([&] { SafetensorsFolder f(folder.string()); }).find("three.safetensors: cannot be opened"), std::string::npos);
  index(R"("a":"../one.safetensors")");
  EXPECT_NE(error([&] { SafetensorsFolder f(folder.string()); }).find("beside the index"), std::string::npos);
  write_one(path("model.safetensors"), "a", {1});
  EXPECT_NE(error([&] { SafetensorsFolder f(folder.string()); }).find("has both"), std::string::npos);
  fs::remove(path("model.safetensors.index.json"));
  EXPECT_EQ(SafetensorsFolder(folder.string()).tensors().size(), 1u);
}

TEST_F(Safetensors, SplitsIntoShardsAsTransformers) {
  const std::vector<SafetensorsInfo> tensors = {
      {"a", "F32", {10}}, {"b", "F32", {10}}, {"big", "BF16", {100}}, {"c", "F32", {5}}, {"d", "F32", {20}}};
  const auto shards = split_into_shards(tensors, 100);
  std::string names;
  for (const auto& shard : shards) {
    for (const SafetensorsInfo& info : shard) names += info.name + " ";
    names += "| ";
  }
  EXPECT_EQ(names, "big | a b c | d | ");
  EXPECT_EQ(split_into_shards(tensors, 1000).size(), 1u);
  EXPECT_EQ(shard_name(0, 1), "model.safetensors");
  EXPECT_EQ(shard_name(1, 12), "model-00002-of-00012.safetensors");
  EXPECT_EQ(shard_index({{{"b", "BF16", {3}}}, {{"a", "F32", {1}}}}, 4),
            "{\n  \"metadata\": {\n    \"total_parameters\": 4,\n    \"total_size\": 10\n  },\n  \"weight_map\": {\n"
            "    \"a\": \"model-00002-of-00002.safetensors\",\n    \"b\": \"model-00001-of-00002.safetensors\"\n  }\n}\n");
}

}  // namespace
}  // namespace af
