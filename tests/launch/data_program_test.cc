// af_data as its user meets it: exit codes, messages, files.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "data/token_dataset.h"
#include "data/tokenizer.h"
#include "launch/data_commands.h"
#include "tests/data/corpus.h"

namespace af {
namespace {

struct Outcome {
  int code;
  std::string out, err;
};

Outcome af_data(const std::vector<std::string>& words) {
  std::vector<const char*> argv{"af_data"};
  for (const std::string& word : words) argv.push_back(word.c_str());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  Outcome outcome;
  outcome.code = run_program({"af_data", "data", {tokenize_command(), inspect_command(), verify_command()}}, int(argv.size()), argv.data());
  std::fflush(stdout);
  outcome.out = testing::internal::GetCapturedStdout();
  outcome.err = testing::internal::GetCapturedStderr();
  return outcome;
}

void expect_part(const std::string& text, const std::string& part) { EXPECT_NE(text.find(part), std::string::npos) << part << "\n---\n" << text; }

class DataProgram : public testing::Test {
 protected:
  std::string file(const std::string& name, const std::string& contents) {
    std::ofstream(folder_ / name, std::ios::binary) << contents;
    return folder_ / name;
  }
  std::vector<std::string> documents_of(const std::string& name) {
    TokenDataset dataset(folder_ / name);
    std::vector<std::string> texts;
    for (std::int64_t d = 0; d < dataset.num_documents(); ++d) {
      std::vector<std::uint32_t> tokens(std::size_t(dataset.offsets()[std::size_t(d) + 1] - dataset.offsets()[std::size_t(d)]));
      dataset.read(dataset.offsets()[std::size_t(d)], std::int64_t(tokens.size()), tokens.data());
      texts.push_back(make_tokenizer("bytes")->decode(tokens));
    }
    return texts;
  }
  ScratchFolder folder_;
};

TEST_F(DataProgram, TokenizesLinesMessagesAndFiles) {
  std::string lines =
      file("a.jsonl", "{\"text\": \"gr\\u00fcn\"}\r\n\n{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n{\"text\": \"last\"}");
  std::string text = file("b.txt", "one\ntwo <|im_end|>\n");
  Outcome outcome = af_data({"tokenize", "--tokenizer", "bytes", "--input", lines, text, "--output", folder_ / "x.h5"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  expect_part(outcome.out, "4 documents");
  expect_part(outcome.out, "0 lines skipped");
  EXPECT_EQ(documents_of("x.h5"), (std::vector<std::string>{"gr\u00fcn<|endoftext|>", "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>",
                                                            "last<|endoftext|>", "one\ntwo <|im_end|>\n<|endoftext|>"}));
  EXPECT_EQ(TokenDataset(folder_ / "x.h5").num_tokens(), 6 + (1 + 5 + 2 + 1 + 1 + 1) + 5 + (19 + 1));
  af_data({"tokenize", "--tokenizer", "bytes", "--special-tokens-in-text", "recognise", "--input", text, "--output", folder_ / "y.h5"});
  EXPECT_EQ(TokenDataset(folder_ / "y.h5").num_tokens(), 19 - 9 + 1);
  EXPECT_EQ(af_data({"verify", folder_ / "x.h5", folder_ / "y.h5"}).code, 0);
  Outcome shown = af_data({"inspect", folder_ / "x.h5", "--bigram", folder_ / "y.h5"});
  EXPECT_EQ(shown.code, 0) << shown.err;
  for (const char* part :
       {"documents          4", "source             a.jsonl b.txt", "user", "gr\u00fcn<|endoftext|>", "nats per token over 10 targets"})
    expect_part(shown.out, part);
}

TEST_F(DataProgram, BrokenLinesAreReportedAndSkipped) {
  std::string lines = file("a.jsonl",
                           "{\"text\": \"good\"}\n{\"text\": \n{\"text\": \"\xff\"}\n{\"body\": \"other\"}\n{\"text\": 7}\n{\"text\": \"\"}\n"
                           "{\"messages\": [{\"role\": \"boss\", \"content\": \"\"}]}\n[]\n{\"text\": \"also good\"}\n");
  std::vector<std::string> command{"tokenize", "--tokenizer", "bytes", "--input", lines, "--output", folder_ / "x.h5"};
  Outcome outcome = af_data(command);
  EXPECT_EQ(outcome.code, 0);
  expect_part(outcome.out, "2 documents");
  expect_part(outcome.out, "7 lines skipped");
  for (int line = 2; line <= 8; ++line) expect_part(outcome.err, fmt::format("a.jsonl:{}", line));
  EXPECT_EQ(documents_of("x.h5"), (std::vector<std::string>{"good<|endoftext|>", "also good<|endoftext|>"}));
  command.back() = folder_ / "strict.h5";
  command.push_back("--strict");
  EXPECT_EQ(af_data(command).code, 2);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "strict.h5"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "strict.h5.tmp"));
  EXPECT_EQ(af_data({"tokenize", "--tokenizer", "bytes", "--text-key", "body", "--input", lines, "--output", folder_ / "body.h5"}).code, 0);
  EXPECT_EQ(documents_of("body.h5"), std::vector<std::string>{"other<|endoftext|>"});
}

TEST_F(DataProgram, WrongUseIsOneMessageAndExitCodeTwo) {
  std::string lines = file("a.jsonl", "\n"), pdf = file("a.pdf", "");
  auto expect = [&](const std::vector<std::string>& words, std::initializer_list<const char*> parts) {
    Outcome outcome = af_data(words);
    EXPECT_EQ(outcome.code, 2);
    for (const char* part : parts) expect_part(outcome.err, part);
  };
  expect({"tokenize", "--tokenizer", "qwen", "--input", lines, "--output", "x"}, {"qwen: there is no such tokenizer"});
  expect({"tokenize", "--tokenizer", "bytes", "--input", folder_ / "none.txt", pdf, "--output", "x"},
         {"none.txt: cannot be read", "a.pdf: the name must end"});
  expect({"tokenize", "--tokenizer", "bytes", "--input", lines, "--output", folder_ / "x.h5"}, {"there is no document"});
  expect({"tokenize", "--inptu", "x"}, {"did you mean '--input'", "--tokenizer NAME is missing", "--output X.h5 is missing"});
  expect({"inspect", lines}, {"a.jsonl: not an HDF5 file"});
  expect({"verify", pdf, folder_ / "none.h5"}, {"a.pdf: not an HDF5 file", "none.h5: cannot be opened"});
  EXPECT_FALSE(std::filesystem::exists(folder_ / "x.h5"));
}

// The 120 real trajectories: who speaks how much is known from the text itself.
TEST_F(DataProgram, RealTrajectories) {
  const char* data = std::getenv("AF_TEST_DATA");
  if (!data) GTEST_SKIP() << "AF_TEST_DATA does not name the folder with trajectories.jsonl";
  Outcome outcome =
      af_data({"tokenize", "--tokenizer", "bytes", "--input", std::string(data) + "/trajectories.jsonl", "--output", folder_ / "x.h5", "--strict"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  TokenDataset dataset(folder_ / "x.h5");
  EXPECT_EQ(dataset.num_documents(), 120);
  std::vector<std::uint32_t> tokens(std::size_t(dataset.num_tokens()));
  std::vector<std::uint8_t> roles(tokens.size());
  dataset.read(0, dataset.num_tokens(), tokens.data());
  dataset.read_roles(0, dataset.num_tokens(), roles.data());
  auto count = [&](const char* text, Role role) {
    std::uint32_t id = make_tokenizer("bytes")->special_token(text);
    std::int64_t n = 0;
    for (std::size_t i = 0; i < tokens.size(); ++i) n += tokens[i] == id && roles[i] == std::uint8_t(role);
    return n;
  };
  EXPECT_EQ(count("<think>", Role::thought), 249);  // each opening tag that an assistant wrote
  EXPECT_EQ(count("<tool_call>", Role::action), 129);
  EXPECT_EQ(count("<tool_response>", Role::observation), 129);
  EXPECT_EQ(count("<|im_end|>", Role::answer), 120);
  EXPECT_EQ(problems_of_dataset(folder_ / "x.h5"), std::vector<std::string>{});
}

}  // namespace
}  // namespace af
