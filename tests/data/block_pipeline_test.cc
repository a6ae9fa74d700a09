// Whatever the number of threads, the blocks are those of one reader and one tokenizer, in the order of the input.
#include "data/block_pipeline.h"

#include <fstream>

#include "tests/data/corpus.h"

namespace af {
namespace {

class Pipeline : public testing::Test {
 protected:
  void SetUp() override {
    std::mt19937 random(1);
    for (int file = 0; file < 40; ++file) {  // most are small, some have several blocks, some have one long line, one is empty
      const std::string path = folder_ / fmt::format("{:02}.{}", file, file % 7 == 6 ? "txt" : "jsonl");
      std::ofstream out(path, std::ios::binary);
      const std::size_t size = file == 3 ? 0 : file % 10 == 5 ? 1'400'000 : file % 20 == 8 ? 1'100'000 : random() % 20'000;
      if (file % 7 == 6) {
        out << std::string(size, 'x') << "\xff";  // not UTF-8
      } else if (file % 20 == 8) {
        out << "{\"text\": \"" << std::string(size, 'y') << "\"}";
      } else {
        for (std::size_t written = 0; written < size;) {
          const std::string text(random() % 3000, char('a' + random() % 26));
          const std::string line = random() % 20 == 0  ? "broken " + text
                                   : random() % 4 == 0 ? "{\"messages\": [{\"role\": \"user\", \"content\": \"" + text + "\"}]}"
                                                       : "{\"text\": \"<|im_end|>" + text + "\"}";
          out << line << "\n";
          written += line.size() + 1;
        }
      }
      out.close();
      sources_.push_back({path, file % 7 != 6, stamp_of(path)});
    }
    options_.signatures = true;
  }
  std::vector<std::string> in_one_thread() {
    std::vector<std::string> all;
    BlockTokenizer tokenizer(*tokenizer_, options_, sources_);
    TextBlock block;
    BlockRecord record;
    for (std::size_t s = 0; s < sources_.size(); ++s) {
      BlockReader reader(sources_[s], std::int64_t(s), kMostLine);
      do {
        reader.next(block);
        tokenizer.run(block, record);
        all.push_back(pack(record, 2));
      } while (!block.last);
    }
    return all;
  }
  std::vector<std::string> from(const BlockPipeline::Position& begin, int threads) {
    std::vector<std::string> all;
    BlockPipeline pipeline(*tokenizer_, options_, sources_, begin, kMostLine, threads);
    for (FinishedBlock block; pipeline.next(block);) {
      EXPECT_EQ(pack(block.record, 2), block.bytes);
      all.push_back(block.bytes);
    }
    return all;
  }
  static constexpr std::int64_t kMostLine = 1'050'000;
  ScratchFolder folder_;
  std::vector<TextSource> sources_;
  TokenizeOptions options_;
  std::unique_ptr<Tokenizer> tokenizer_ = make_tokenizer("bytes");
};

TEST_F(Pipeline, AnyNumberOfThreadsFromAnyPlace) {
  const std::vector<std::string> expected = in_one_thread();
  ASSERT_GE(expected.size(), 44u);
  for (int threads : {1, 2, 7}) EXPECT_TRUE(from({}, threads) == expected) << threads;
  for (std::size_t i : {std::size_t{0}, std::size_t{3}, std::size_t{6}, std::size_t{8}, expected.size() - 2, expected.size() - 1}) {
    const BlockRecord before = unpack(expected[i]);
    const BlockPipeline::Position next =
        before.last ? BlockPipeline::Position{before.source + 1, 0, ""} : BlockPipeline::Position{before.source, before.number + 1, before.sha256};
    EXPECT_TRUE(from(next, 3) == std::vector<std::string>(expected.begin() + std::ptrdiff_t(i) + 1, expected.end())) << i;
  }
}

TEST_F(Pipeline, ProblemsKeepTheOrderOfTheLines) {
  std::int64_t skipped = 0, kept = 0;
  std::string last;
  for (const std::string& bytes : in_one_thread()) {
    const BlockRecord record = unpack(bytes);
    skipped += record.skipped, kept += std::int64_t(record.documents.size());
    EXPECT_LE(record.problems.size(), BlockRecord::kMostProblems);
    for (std::size_t i = 1; i < record.problems.size(); ++i) EXPECT_LT(record.problems[i - 1].line, record.problems[i].line);
  }
  EXPECT_GT(skipped, 50);
  EXPECT_GT(kept, 1000);
}

TEST_F(Pipeline, FailuresReachTheCallerAfterTheBlocksBefore) {
  const std::vector<std::string> whole = in_one_thread();
  std::filesystem::resize_file(sources_[25].name, 1'350'000);
  std::filesystem::remove(sources_[30].name);
  for (int threads : {1, 2, 5}) {
    std::vector<std::string> before;
    const std::string complaint = complaint_of([&] {
      BlockPipeline pipeline(*tokenizer_, options_, sources_, {}, kMostLine, threads);
      for (FinishedBlock block; pipeline.next(block);) before.push_back(block.bytes);
    });
    EXPECT_NE(complaint.find("25.jsonl: was changed while it was read"), std::string::npos) << complaint;
    ASSERT_LT(before.size(), whole.size());
    EXPECT_TRUE(std::equal(before.begin(), before.end(), whole.begin()));
    EXPECT_EQ(unpack(before.back()).source, 25) << "its first block is good";
  }
  EXPECT_NE(complaint_of([&] { from({30, 0, ""}, 3); }).find("30.jsonl: cannot be read"), std::string::npos);
  // a file that is to be gone on with, but is another one
  EXPECT_NE(complaint_of([&] { from({15, 1, "another hash"}, 2); }).find("15.jsonl: is not what it was"), std::string::npos);
}

TEST_F(Pipeline, StopsWhenNobodyWaits) {
  BlockPipeline pipeline(*tokenizer_, options_, sources_, {}, kMostLine, 4);
  FinishedBlock block;
  EXPECT_TRUE(pipeline.next(block));
}

// Thoughts, actions and answers of a chat, with what ends them, and nothing else; text without roles as a whole.
TEST(BlockTokenizerTest, LossOnTheAssistant) {
  ScratchFolder folder;
  const std::string path = folder / "a.jsonl";
  std::ofstream(path) << R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"},)"
                      << R"( {"role": "assistant", "content": "<think>t</think>\n<tool_call>c</tool_call>"},)"
                      << R"( {"role": "user", "content": "<tool_response>o</tool_response>"}, {"role": "assistant", "content": "a"}]})"
                      << "\n{\"text\": \"plain\"}\n{\"messages\": [{\"role\": \"user\", \"content\": \"alone\"}]}\n";
  const std::vector<TextSource> sources{{path, true, stamp_of(path)}};
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer("bytes");
  TokenizeOptions options;
  options.loss_on = kAssistantRoles;
  BlockTokenizer worker(*tokenizer, options, sources);
  BlockReader reader(sources[0], 0, 1 << 20);
  TextBlock block;
  BlockRecord record;
  reader.next(block);
  worker.run(block, record);
  ASSERT_EQ(record.documents.size(), 3u);
  std::string counted;
  for (const TokenRange& range : record.counted) {
    counted += tokenizer->decode(std::span(record.tokens).subspan(std::size_t(range.begin), std::size_t(range.end - range.begin))) + "|";
  }
  EXPECT_EQ(counted, "<think>t</think>|<tool_call>c</tool_call><|im_end|>|a<|im_end|>|");
  EXPECT_EQ(record.documents[0].counted, 3);
  EXPECT_EQ(record.documents[1].counted, -1);
  EXPECT_EQ(record.documents[2].counted, 0);
}

// Any roles, unmarked text among them, of segments; 'segments' goes before 'messages', and a line with one that is wrong is named.
TEST(BlockTokenizerTest, LossOnRolesOfSegments) {
  ScratchFolder folder;
  const std::string path = folder / "a.jsonl";
  std::ofstream(path) << R"({"segments": [{"role": "user", "text": "u"}, {"role": "other", "text": "o"}, {"role": "decision", "text": "d"},)"
                      << R"( {"role": "observation", "text": "r"}, {"role": "other", "text": "p"}, {"role": "judgement", "text": "j"}], "messages": 1})"
                      << "\n{\"segments\": [{\"role\": \"me\", \"text\": \"x\"}]}\n{\"segments\": [{\"role\": \"other\", \"text\": \"q\"}]}\n"
                      << R"({"segments": [{"role": "user", "text": "v"}]})" << "\n";
  const std::vector<TextSource> sources{{path, true, stamp_of(path)}};
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer("bytes");
  TokenizeOptions options;
  options.loss_on = {Role::other, Role::decision, Role::judgement};
  BlockTokenizer worker(*tokenizer, options, sources);
  BlockReader reader(sources[0], 0, 1 << 20);
  TextBlock block;
  BlockRecord record;
  reader.next(block);
  worker.run(block, record);
  ASSERT_EQ(record.documents.size(), 3u);
  EXPECT_EQ(record.counted, (std::vector<TokenRange>{{1, 3}, {4, 7}, {0, 2}})) << "the end of the document counts as what it ends";
  EXPECT_EQ(record.documents[0].counted, 2);
  EXPECT_EQ(record.documents[1].counted, 1);
  EXPECT_EQ(record.documents[2].counted, 0);
  ASSERT_EQ(record.problems.size(), 1u);
  EXPECT_NE(record.problems[0].what.find("a.jsonl:2: segments[0].role: 'me' is none of"), std::string::npos) << record.problems[0].what;
}

}  // namespace
}  // namespace af
