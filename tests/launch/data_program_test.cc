// af_data as its user meets it: exit codes, messages, files.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "data/byte_stream.h"
#include "data/manifest.h"
#include "data/sha256.h"
#include "data/spool.h"
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
  outcome.code =
      run_program({"af_data", "data", {tokenize_command(), import_command(), inspect_command(), verify_command()}}, int(argv.size()), argv.data());
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
  shown = af_data({"inspect", folder_ / "x.h5", "--document", "3", "--sample", "5"});
  expect_part(shown.out, "the first 5 of 20 tokens of document 3\none\nt\n");
  EXPECT_EQ(af_data({"inspect", folder_ / "x.h5", "--document", "4"}).code, 2);
}

TEST_F(DataProgram, TheManifestSaysWhereItIsFrom) {
  const std::string a = "{\"text\": \"one\", \"license\": \"MIT\"}\n{\"text\": \"two\"}\nbroken\n\n{\"text\": \" one\\n\", \"license\": \"GPL\"}\n";
  const std::string first = file("a.jsonl", a), second = file("b.txt", "\xef\xbb\xbfthree");
  Outcome outcome = af_data({"tokenize", "--tokenizer", "bytes", "--input", folder_ / "[ab].*", "--output", folder_ / "x.h5", "--licence", "CC0",
                             "--licence-key", "license", "--remove-duplicates", "exact"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  expect_part(outcome.err, "a.jsonl:5: the same text as document 0");
  expect_part(outcome.out, "1 exact duplicates; 1 documents removed (--remove-duplicates exact)");
  EXPECT_EQ(documents_of("x.h5"), (std::vector<std::string>{"one<|endoftext|>", "two<|endoftext|>", "three<|endoftext|>"}));
  const Json json = Json::parse_file(folder_ / "x.h5.manifest.json");
  const Manifest manifest = manifest_from(JsonView(json, "x"));
  EXPECT_EQ(to_json(manifest), json);
  EXPECT_EQ(manifest.dataset, "x.h5");
  EXPECT_EQ(manifest.tokenizer, "bytes");
  EXPECT_EQ(manifest.tokenizer_sha256, make_tokenizer("bytes")->sha256());
  EXPECT_EQ(manifest.documents, 3);
  EXPECT_EQ(manifest.tokens, 4 + 4 + 6);
  EXPECT_EQ(manifest.duplicates->exact, 1);
  ASSERT_EQ(manifest.sources.size(), 2u);
  EXPECT_EQ(manifest.sources[0].name, first);
  EXPECT_EQ(manifest.sources[0].bytes, std::int64_t(a.size()));
  EXPECT_EQ(manifest.sources[0].sha256, sha256_hex(a));
  EXPECT_EQ(manifest.sources[0].documents, 2);
  EXPECT_EQ(manifest.sources[0].tokens, 8);
  EXPECT_EQ(manifest.sources[0].lines, 5);
  EXPECT_EQ(manifest.sources[0].lines_skipped, 1);
  EXPECT_EQ(manifest.sources[0].duplicates_removed, 1);
  EXPECT_EQ(manifest.sources[0].licence, "CC0");
  EXPECT_EQ(manifest.sources[0].licences, (std::map<std::string, std::int64_t>{{"MIT", 1}, {"CC0", 1}}));
  EXPECT_EQ(manifest.sources[1].sha256, sha256_hex("\xef\xbb\xbfthree"));
  EXPECT_EQ(json.find("options")->find("remove-duplicates")->string(), "exact");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "x.h5.part"));
  Outcome shown = af_data({"inspect", folder_ / "x.h5"});
  for (const std::string& part : {std::string("a.jsonl, CC0: 1, MIT: 1, "), sha256_hex(a).substr(0, 12), std::string("1 exact duplicates")}) {
    expect_part(shown.out, part);
  }
}

TEST_F(DataProgram, NearDuplicatesAreFoundCountedAndRemoved) {
  auto text = [](int from, int to, const std::string& changed) {
    std::string words;
    for (int i = from; i < to; ++i) words += fmt::format("{}{}", i == (from + to) / 2 ? changed : "word", i) + " ";
    return "{\"text\": \"" + words + "\"}\n";
  };
  // 296 5-grams each; one word changed: 291 of 301 in common. The third shares half with the first.
  const std::string lines = file("a.jsonl", text(0, 300, "word") + text(0, 300, "other") + text(150, 450, "word") + text(0, 300, "third"));
  std::vector<std::string> command{"tokenize", "--tokenizer", "bytes", "--input", lines, "--output", folder_ / "x.h5", "--near-duplicates", "0.8"};
  Outcome outcome = af_data(command);
  expect_part(outcome.out, "0 exact duplicates, 2 near duplicates (similarity 0.8 or more); 0 documents removed");
  EXPECT_EQ(documents_of("x.h5").size(), 4u);
  command.insert(command.end(), {"--remove-duplicates", "near"});
  outcome = af_data(command);
  expect_part(outcome.err, "a.jsonl:2: nearly the same text as document 0");
  expect_part(outcome.err, "a.jsonl:4: nearly the same text as document 0");
  expect_part(outcome.out, "2 documents removed (--remove-duplicates near)");
  EXPECT_EQ(documents_of("x.h5").size(), 2u);
  EXPECT_EQ(af_data({"tokenize", "--tokenizer", "bytes", "--input", lines, "--output", folder_ / "x.h5", "--near-duplicates", "1.5"}).code, 2);
}

TEST_F(DataProgram, LossOnTheAssistantOnly) {
  const std::string lines = file("a.jsonl",
                                 "{\"text\": \"whole\"}\n{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", "
                                 "\"content\": \"<think>a</think>b<answer>c</answer>\"}]}\n");
  ASSERT_EQ(af_data({"tokenize", "--tokenizer", "bytes", "--input", lines, "--output", folder_ / "x.h5", "--loss-on", "assistant"}).code, 0);
  TokenDataset dataset(folder_ / "x.h5");
  std::vector<std::uint32_t> tokens(std::size_t(dataset.num_tokens())), counted;
  std::vector<std::uint8_t> mask(tokens.size());
  dataset.read(0, dataset.num_tokens(), tokens.data());
  dataset.read_loss_mask(0, dataset.num_tokens(), mask.data());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (mask[i]) counted.push_back(tokens[i]);
  }
  EXPECT_EQ(make_tokenizer("bytes")->decode(counted), "whole<|endoftext|><think>a</think><answer>c</answer><|im_end|>");
  expect_part(af_data({"inspect", folder_ / "x.h5"}).out, "counted as targets       28");
}

TEST_F(DataProgram, LossOnRoles) {
  const std::string lines = file("a.jsonl", "{\"segments\": [{\"role\": \"user\", \"text\": \"q\"}, {\"role\": \"decision\", \"text\": \"one\"}]}\n");
  ASSERT_EQ(af_data({"tokenize", "--tokenizer", "bytes", "--input", lines, "--output", folder_ / "x.h5", "--loss-on", "judgement,decision"}).code, 0);
  EXPECT_EQ(documents_of("x.h5"), std::vector<std::string>{"qone<|endoftext|>"});
  expect_part(af_data({"inspect", folder_ / "x.h5"}).out, "counted as targets        4");
  EXPECT_EQ(Json::parse_file(folder_ / "x.h5.manifest.json").find("options")->find("loss-on")->string(), "decision,judgement");
  for (const char* wrong : {"decisions", "decision,", ","}) {
    const Outcome outcome = af_data({"tokenize", "--tokenizer", "bytes", "--input", lines, "--output", folder_ / "y.h5", "--loss-on", wrong});
    EXPECT_EQ(outcome.code, 2);
    expect_part(outcome.err, "expected all, assistant, or roles with commas between them: other, system");
  }
}

TEST_F(DataProgram, UnfinishedWorkOfAnotherKindIsNotGoneOnWith) {
  const std::string lines = file("a.jsonl", "{\"text\": \"one\"}\n"), other = file("b.jsonl", "{\"text\": \"two\"}\n");
  const std::string output = folder_ / "x.h5";
  auto begin = [&] {  // what a run that was killed leaves behind
    Json source, identity;
    source.set("name", lines), source.set("bytes", 16), source.set("modified_ns", stamp_of(lines).modified_ns);
    ASSERT_EQ(af_data({"tokenize", "--tokenizer", "bytes", "--input", lines, "--output", output}).code, 0);
    identity.set("program", std::string("af_data tokenize ") + kVersion);
    identity.set("tokenizer_sha256", make_tokenizer("bytes")->sha256());
    identity.set("options", *Json::parse_file(output + ".manifest.json").find("options"));
    identity.set("sources", Json::Array{source});
    std::filesystem::remove(output);
    Spool spool(output + ".part");
    std::string entry;
    ASSERT_FALSE(spool.next(entry));
    spool.append(identity.dump());
  };
  begin();
  auto refused = [&](std::vector<std::string> words, const std::string& part) {
    words.insert(words.begin(), {"tokenize", "--tokenizer", "bytes", "--output", output});
    Outcome outcome = af_data(words);
    EXPECT_EQ(outcome.code, 2);
    expect_part(outcome.err, "x.h5.part: holds unfinished work that differs");
    expect_part(outcome.err, part);
    EXPECT_FALSE(std::filesystem::exists(output));
  };
  refused({"--input", lines, "--loss-on", "assistant"}, "--loss-on: was \"all\", is \"assistant\"");
  refused({"--input", lines, other}, "number of input files: was 1, is 2");
  refused({"--input", other}, "input file 1: was " + lines);
  file("a.jsonl", "{\"text\": \"four\"}\n");
  refused({"--input", lines}, "a.jsonl: the file has changed since");
  std::filesystem::remove(output + ".part");
  begin();
  ASSERT_EQ(af_data({"tokenize", "--tokenizer", "bytes", "--input", lines, "--output", output}).code, 2) << "16 bytes then, 17 now";
}

TEST_F(DataProgram, ImportsMegatronDatasets) {
  auto number = [](std::int64_t value, int bytes) {
    std::string text;
    for (int i = 0; i < bytes; ++i) text += char(std::uint64_t(value) >> (8 * i));
    return text;
  };
  std::string bin, idx("MMIDIDX\0\0", 9);
  for (int id : {97, 98, 256, 99, 100}) bin += number(id, 2);
  idx += number(1, 8) + number(8, 1) + number(3, 8) + number(4, 8) + number(3, 4) + number(1, 4) + number(1, 4) + number(0, 8) + number(6, 8) +
         number(8, 8) + number(0, 8) + number(1, 8) + number(1, 8) + number(3, 8);
  const std::string prefix = folder_ / "m";
  file("m.bin", bin), file("m.idx", idx);
  Outcome outcome = af_data({"import", "--tokenizer", "bytes", "--input", folder_ / "m.*", "--output", folder_ / "x.h5", "--licence", "MIT"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  expect_part(outcome.out, "2 documents, 6 tokens from 1 dataset(s); the end of 1 documents was added, 1 empty documents were left out");
  EXPECT_EQ(documents_of("x.h5"), (std::vector<std::string>{"ab<|endoftext|>", "cd<|endoftext|>"}));
  const Json json = Json::parse_file(folder_ / "x.h5.manifest.json");
  const Manifest manifest = manifest_from(JsonView(json, "x"));
  ASSERT_EQ(manifest.sources.size(), 2u);
  EXPECT_EQ(manifest.sources[0].name, prefix + ".bin");
  EXPECT_EQ(manifest.sources[0].sha256, sha256_hex(bin));
  EXPECT_EQ(manifest.sources[1].sha256, sha256_hex(idx));
  EXPECT_EQ(manifest.sources[0].documents, 2);
  EXPECT_EQ(manifest.sources[0].licence, "MIT");
  file("m.bin", bin.substr(0, 8) + number(288, 2));
  outcome = af_data({"import", "--tokenizer", "bytes", "--input", prefix, "--output", folder_ / "y.h5"});
  EXPECT_EQ(outcome.code, 2);
  expect_part(outcome.err, "m.bin: token 1 of document 2 is 288; the tokenizer has 288 ids");
  for (const char* name : {"y.h5", "y.h5.tmp", "y.h5.manifest.json"}) EXPECT_FALSE(std::filesystem::exists(folder_ / name)) << name;
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
