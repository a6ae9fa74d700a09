// af_data train-tokenizer as its user meets it.
#include <gtest/gtest.h>

#include "data/file.h"
#include "data/tokenizer.h"
#include "launch/data_commands.h"
#include "tests/data/corpus.h"

namespace af {
namespace {

struct Outcome {
  int code;
  std::string out, err;
};

Outcome train(std::vector<std::string> words) {
  words.insert(words.begin(), {"af_data", "train-tokenizer"});
  std::vector<const char*> argv;
  for (const std::string& word : words) argv.push_back(word.c_str());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  Outcome outcome;
  outcome.code = run_program({"af_data", "data", {tokenize_command(), train_tokenizer_command()}}, int(argv.size()), argv.data());
  std::fflush(stdout);
  outcome.out = testing::internal::GetCapturedStdout();
  outcome.err = testing::internal::GetCapturedStderr();
  return outcome;
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(TrainTokenizer, LearnsFromLinesMessagesAndFiles) {
  ScratchFolder folder;
  write_file(folder / "a.jsonl",
             "{\"text\": \"banana banana\"}\n"
             "{\"messages\": [{\"role\": \"user\", \"content\": \"cherry cherry\"}]}\n"
             "\n{\"text\": 3}\nnot JSON\n");
  write_file(folder / "b.txt", "date date date");
  write_file(folder / "c.txt", "damson damson \xff");
  const std::vector<std::string> command{"--input", folder / "a.jsonl", folder / "b.txt", folder / "c.txt", "--vocab-size",
                                         "1000",    "--output",         folder / "out"};
  const Outcome outcome = train(command);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(contains(outcome.err, "a.jsonl:4: text: expected a string, found the number 3")) << outcome.err;
  EXPECT_TRUE(contains(outcome.err, "a.jsonl:5:")) << outcome.err;
  EXPECT_TRUE(contains(outcome.err, "c.txt: byte 14 is not UTF-8")) << outcome.err;
  EXPECT_TRUE(contains(outcome.out, "3 lines skipped")) << outcome.out;
  EXPECT_TRUE(contains(outcome.out, "the text gives no 1000 ids")) << outcome.out;

  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(folder / "out");
  auto count = [&](const std::string& text) {
    std::vector<std::uint32_t> ids;
    tokenizer->encoder()->encode(text, SpecialTokens::split, ids);
    EXPECT_EQ(tokenizer->decode(ids), text);
    return ids.size();
  };
  EXPECT_EQ(count("banana"), 1u);
  EXPECT_EQ(count("cherry"), 1u);
  EXPECT_EQ(count(" date"), 1u);
  EXPECT_GT(count("damson"), 3u);

  std::vector<std::string> by_key = command;
  by_key.insert(by_key.end(), {"--text-key", "text"});
  EXPECT_EQ(train(by_key).code, 0);
  const std::unique_ptr<Tokenizer> other = make_tokenizer(folder / "out");
  std::vector<std::uint32_t> ids;
  other->encoder()->encode("cherry", SpecialTokens::split, ids);
  EXPECT_GT(ids.size(), 2u);  // messages were not looked at
  EXPECT_NE(other->sha256(), tokenizer->sha256());
}

TEST(TrainTokenizer, Refusals) {
  ScratchFolder folder;
  write_file(folder / "a.jsonl", "{\"text\": \"aa aa\"}\nbad\n");
  write_file(folder / "empty.jsonl", "");
  auto refused = [&](const std::string& input, const std::string& size, bool strict, const std::string& part) {
    std::vector<std::string> words{"--input", folder / input, "--vocab-size", size, "--output", folder / "out"};
    if (strict) words.push_back("--strict");
    const Outcome outcome = train(words);
    EXPECT_EQ(outcome.code, 2);
    EXPECT_TRUE(contains(outcome.err, part)) << outcome.err;
    EXPECT_FALSE(std::filesystem::exists(folder / "out/tokenizer.json"));
  };
  refused("a.jsonl", "281", false, "--vocab-size 281: expected 282");
  refused("a.jsonl", "many", false, "--vocab-size");
  refused("a.jsonl", "300", true, "1 lines cannot be used; nothing was written (--strict)");
  refused("empty.jsonl", "300", false, "there is no text in the input");
  refused("nothing.jsonl", "300", false, "nothing.jsonl");
  write_file(folder / "out.txt", "x");
  const Outcome outcome = train({"--input", folder / "a.jsonl", "--vocab-size", "300", "--output", folder / "out.txt"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_TRUE(contains(outcome.err, "out.txt: the folder cannot be made")) << outcome.err;
  EXPECT_EQ(train({"--input", folder / "a.jsonl", "--vocab-size", "300", "--output", folder / "out"}).code, 0);
}

}  // namespace
}  // namespace af
