#include "data/token_dataset.h"

#include <fstream>

#include "data/file.h"
#include "tests/data/corpus.h"

// HDF5 1.10 forgets memory when it meets a damaged file; with -fsanitize=address only that is forgiven.
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }

namespace af {
namespace {

void expect_equal(TokenDataset& dataset, const Corpus& corpus, std::mt19937& random, int ranges) {
  std::vector<std::uint32_t> tokens;
  std::vector<std::uint8_t> mask, roles;
  std::vector<std::int64_t> offsets{0};
  for (std::size_t d = 0; d < corpus.documents.size(); ++d) {
    tokens.insert(tokens.end(), corpus.documents[d].begin(), corpus.documents[d].end());
    mask.insert(mask.end(), corpus.counted[d].begin(), corpus.counted[d].end());
    roles.insert(roles.end(), corpus.roles[d].begin(), corpus.roles[d].end());
    offsets.push_back(std::int64_t(tokens.size()));
  }
  ASSERT_EQ(dataset.offsets(), offsets);
  for (int i = 0; i < ranges; ++i) {
    std::size_t begin = random() % tokens.size(), count = i == 0 ? tokens.size() : 1 + random() % 3000;
    if (i == 0) begin = 0;
    count = std::min(count, tokens.size() - begin);
    std::vector<std::uint32_t> some(count);
    std::vector<std::uint8_t> some_mask(count, 7), some_roles(count, 7);
    dataset.read(std::int64_t(begin), std::int64_t(count), some.data());
    dataset.read_loss_mask(std::int64_t(begin), std::int64_t(count), some_mask.data());
    dataset.read_roles(std::int64_t(begin), std::int64_t(count), some_roles.data());
    ASSERT_TRUE(std::equal(some.begin(), some.end(), tokens.begin() + std::ptrdiff_t(begin)));
    ASSERT_TRUE(std::equal(some_mask.begin(), some_mask.end(), mask.begin() + std::ptrdiff_t(begin)));
    ASSERT_TRUE(std::equal(some_roles.begin(), some_roles.end(), roles.begin() + std::ptrdiff_t(begin)));
  }
}

TEST(TokenDataset, ThereAndBackAcrossAllBuffers) {
  ScratchFolder folder;
  std::mt19937 random(1);
  struct Case {
    int documents, longest;
    bool roles, mask;
  };
  // more tokens, runs and documents than the writer buffers (256Ki, 64Ki / 3, 64Ki) and than the reader loads at once
  for (Case c : {Case{3000, 300, true, true}, Case{70'000, 3, false, false}, Case{1, 5, true, false}, Case{10, 50, false, true}}) {
    Corpus corpus(5, c.documents, c.longest, c.roles, c.mask);
    corpus.write(folder / "x.h5");
    EXPECT_FALSE(std::filesystem::exists(folder / "x.h5.tmp"));
    TokenDataset dataset(folder / "x.h5");
    EXPECT_EQ(dataset.num_documents(), c.documents);
    EXPECT_EQ(dataset.num_tokens(), corpus.tokens);
    EXPECT_EQ(dataset.has_loss_mask(), c.mask);
    EXPECT_EQ(dataset.info().tokenizer_sha256, "tokenizer of the test");
    EXPECT_EQ(dataset.info().vocab_size, 1 << 22);
    EXPECT_EQ(dataset.info().source, "random");
    expect_equal(dataset, corpus, random, 300);
    EXPECT_EQ(problems_of_dataset(folder / "x.h5"), std::vector<std::string>{});
  }
}

TEST(TokenDataset, WriterRefusesWhatWouldNotReadBack) {
  ScratchFolder folder;
  TokenDatasetWriter writer(folder / "x.h5", {"t", 10, 3, ""});
  const std::vector<std::uint32_t> tokens{1, 2, 4};
  EXPECT_THROW(writer.add_document(std::vector<std::uint32_t>{10}), InternalError);  // outside the vocabulary
  auto refuses = [&](std::vector<RoleRun> runs) { EXPECT_THROW(writer.add_document(tokens, runs), InternalError); };
  refuses({{0, 4, Role::user}});
  refuses({{1, 1, Role::user}});
  refuses({{1, 3, Role::user}, {2, 3, Role::user}});
}

TEST(TokenDataset, EndOfDocumentIsAppendedOnce) {
  ScratchFolder folder;
  TokenDatasetWriter writer(folder / "x.h5", {"t", 10, 3, ""});
  writer.add_document(std::vector<std::uint32_t>{1, 2});
  writer.add_document(std::vector<std::uint32_t>{1, 3});
  writer.add_document({});
  writer.close();
  TokenDataset dataset(folder / "x.h5");
  std::vector<std::uint32_t> tokens(6);
  dataset.read(0, 6, tokens.data());
  EXPECT_EQ(tokens, (std::vector<std::uint32_t>{1, 2, 3, 1, 3, 3}));
  EXPECT_EQ(dataset.offsets(), (std::vector<std::int64_t>{0, 3, 5, 6}));
}

TEST(TokenDataset, NothingIsLeftOfAnUnfinishedOne) {
  ScratchFolder folder;
  Corpus corpus(5, 10, 10);
  corpus.write(folder / "x.h5");
  const std::string before = read_file(folder / "x.h5");
  {
    TokenDatasetWriter writer(folder / "x.h5", {"t", 10, 3, ""});
    writer.add_document(std::vector<std::uint32_t>{1, 2});
    EXPECT_TRUE(std::filesystem::exists(folder / "x.h5.tmp"));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "x.h5.tmp"));
  EXPECT_EQ(read_file(folder / "x.h5"), before);
}

// One dataset written by hand per fault: what the reader or verify says of it.
TEST(TokenDataset, FaultsAreNamed) {
  ScratchFolder folder;
  struct Parts {
    std::vector<std::uint32_t> tokens{1, 2, 0, 4, 5, 0};
    std::vector<std::int64_t> offsets{0, 3, 6}, runs{0, 2, 1, 3, 5, 2};
    std::string format = "af_tokens";
    std::int64_t version = 1, vocab_size = 10, eod = 0;
  };
  auto complaint = [&](auto&& change) {
    Parts parts;
    change(parts);
    {
      H5File file = H5File::create(folder / "x.h5");
      file.set_attribute("/", "format", parts.format);
      file.set_attribute("/", "version", parts.version);
      file.set_attribute("/", "tokenizer_sha256", std::string("t"));
      file.set_attribute("/", "vocab_size", parts.vocab_size);
      file.set_attribute("/", "eod_token_id", parts.eod);
      file.set_attribute("/", "source", std::string());
      auto put = [&](const char* name, H5Type type, std::vector<std::int64_t> shape, const void* data) {
        file.create_dataset(name, type, shape).write(std::vector<std::int64_t>(shape.size(), 0), shape, type, data);
      };
      put("/tokens", H5Type::u32, {std::int64_t(parts.tokens.size())}, parts.tokens.data());
      put("/document_offsets", H5Type::i64, {std::int64_t(parts.offsets.size())}, parts.offsets.data());
      put("/role_runs", H5Type::i64, {std::int64_t(parts.runs.size()) / 3, 3}, parts.runs.data());
      file.close();
    }
    std::string text;
    std::string thrown = complaint_of([&] {
      for (const std::string& problem : problems_of_dataset(folder / "x.h5")) text += problem + "\n";
    });
    return thrown.empty() ? text : thrown + "\n";
  };
  auto contains = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find("x.h5: "), std::string::npos) << text;
    EXPECT_NE(text.find(part), std::string::npos) << text;
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
  };
  EXPECT_EQ(complaint([](Parts&) {}), "");
  contains(complaint([](Parts& p) { p.format = "other"; }), "not a token dataset");
  contains(complaint([](Parts& p) { p.version = 2; }), "version 2");
  contains(complaint([](Parts& p) { p.eod = 10; }), "eod_token_id 10 and vocab_size 10");
  contains(complaint([](Parts& p) { p.offsets = {0, 3, 5}; }), "from 0 to the number of tokens, 6");
  contains(complaint([](Parts& p) { p.offsets = {1, 3, 6}; }), "from 0 to the number of tokens");
  contains(complaint([](Parts& p) { p.offsets = {}; }), "from 0 to the number of tokens");
  contains(complaint([](Parts& p) { p.offsets = {0, 3, 3, 6}; }), "document 1 begins at 3 and ends at 3");
  contains(complaint([](Parts& p) { p.offsets = {0, 5, 3, 6}; }), "document 1 begins at 5 and ends at 3");
  contains(complaint([](Parts& p) { p.offsets = {0, 2, 6}; }), "1 documents do not end with the end-of-document token 0, the first is document 0");
  contains(complaint([](Parts& p) { p.tokens[3] = 10; }), "token 3 has the id 10, outside the vocabulary of 10");
  contains(complaint([](Parts& p) { p.runs = {0, 4, 1, 3, 5, 2}; }), "run 1, [3, 5), is not sorted");
  contains(complaint([](Parts& p) { p.runs = {0, 2, 1, 3, 7, 2}; }), "run 1, [3, 7), is not");
  contains(complaint([](Parts& p) { p.runs = {0, 2, 9, 3, 5, 2}; }), "run 0, [0, 2), is not");
}

// Rows that were never written take no room in a file: a wrong number of them is not asked of memory.
TEST(TokenDataset, MoreRowsThanTheFileCanHold) {
  ScratchFolder folder;
  for (const char* huge : {"/tokens", "/document_offsets", "/role_runs"}) {
    {
      H5File file = H5File::create(folder / "x.h5");
      file.set_attribute("/", "format", std::string("af_tokens"));
      for (const char* name : {"version", "vocab_size"}) file.set_attribute("/", name, std::int64_t{1});
      file.set_attribute("/", "eod_token_id", std::int64_t{0});
      for (const char* name : {"tokenizer_sha256", "source"}) file.set_attribute("/", name, std::string("x"));
      const std::int64_t offsets[] = {0, 1}, run[] = {0, 1, 1};
      const std::uint32_t token = 0;
      const auto put = [&](const std::string& name, H5Type type, std::vector<std::int64_t> shape, const void* data) {
        if (name == huge) shape[0] = std::int64_t{1} << 50;
        H5Dataset dataset = file.create_dataset(name, type, shape, {16, true, true});
        if (name != huge) dataset.write(std::vector<std::int64_t>(shape.size(), 0), shape, type, data);
      };
      put("/tokens", H5Type::u32, {1}, &token);
      put("/document_offsets", H5Type::i64, {2}, offsets);
      put("/role_runs", H5Type::i64, {1, 3}, run);
      file.close();
    }
    const std::string text = complaint_of([&] { TokenDataset dataset(folder / "x.h5"); });
    EXPECT_NE(text.find(fmt::format("x.h5: {}: {} rows in a file of", huge, std::int64_t{1} << 50)), std::string::npos) << text;
  }
}

// Cut anywhere, or with any byte changed, a file gives one message or is as good as before: never a crash, never other tokens.
TEST(TokenDataset, DamagedFilesNeverCrashNorLie) {
  ScratchFolder folder;
  Corpus corpus(6, 400, 150, true, true);
  corpus.write(folder / "good.h5");
  const std::string good = read_file(folder / "good.h5");
  std::mt19937 random(2);
  int refused = 0, harmless = 0;
  auto attempt = [&](const std::string& bytes, bool may_be_harmless) {
    std::ofstream(folder / "bad.h5", std::ios::binary) << bytes;
    std::string text = complaint_of([&] {
      for (const std::string& problem : problems_of_dataset(folder / "bad.h5")) throw UserError(problem);
    });
    if (!text.empty()) {
      EXPECT_NE(text.find("bad.h5: "), std::string::npos) << text;
      EXPECT_EQ(text.find('\n'), std::string::npos) << text;
      ++refused;
      return;
    }
    ASSERT_TRUE(may_be_harmless);
    TokenDataset dataset(folder / "bad.h5");
    expect_equal(dataset, corpus, random, 1);
    ++harmless;
  };
  attempt(good, true);
  ASSERT_EQ(harmless, 1);
  for (std::size_t length = 0; length < 4096; length += 97) attempt(good.substr(0, length), false);
  for (int i = 0; i < 40; ++i) attempt(good.substr(0, random() % good.size()), false);
  attempt(good.substr(0, good.size() - 1), false);
  auto flip = [&](std::size_t at) {
    std::string bytes = good;
    bytes[at] = char(bytes[at] ^ (1 << random() % 8));
    attempt(bytes, true);
  };
  for (std::size_t at = 0; at < 3000; at += 19) flip(at);  // the structures that everything hangs on
  for (int i = 0; i < 150; ++i) flip(random() % good.size());
  EXPECT_GT(refused, 300) << harmless;
}

}  // namespace
}  // namespace af
