#include "data/bpe_files.h"

#include <functional>

#include "data/bpe_builder.h"
#include "data/bpe_json.h"
#include "data/file.h"
#include "data/json.h"
#include "tests/data/bpe_toy.h"
#include "tests/data/corpus.h"

namespace af {
namespace {

namespace fs = std::filesystem;

std::string base64(std::string_view bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t j = i; j < i + 3; ++j) bits = bits << 8 | (j < bytes.size() ? static_cast<unsigned char>(bytes[j]) : 0u);
    for (std::size_t j = 0; j < 4; ++j) text += i + j > bytes.size() ? '=' : kDigits[bits >> (18 - 6 * j) & 63];
  }
  return text;
}

std::string tiktoken_of(const BpeVocabulary& vocabulary) {
  std::string text;
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) text += fmt::format("{} {}\n", base64(vocabulary.tokens[id]), id);
  return text;
}

std::string identity(const std::string& path) { return make_tokenizer(path)->sha256(); }

Json& member(Json& json, std::string_view key) { return const_cast<Json&>(*json.find(key)); }

TEST(BpeFiles, EveryFormatIsTheSameTokenizer) {
  const BpeVocabulary toy = toy_vocabulary();
  const std::string expected = BpeTokenizer(toy).sha256();
  ScratchFolder scratch;
  for (const char* name : {"json", "parts", "ranks"}) fs::create_directory(scratch / name);

  write_tokenizer_json(toy, scratch / "json");
  EXPECT_EQ(identity(scratch / "json"), expected);
  fs::remove(scratch / "json/tokenizer_config.json");
  EXPECT_EQ(identity(scratch / "json"), expected);
  EXPECT_EQ(identity(scratch / "json/tokenizer.json"), expected);

  const ByteAlphabet alphabet;
  Json vocab, decoder;
  std::string merges = "#version: 0.2\n";
  for (std::size_t id = 0; id < toy.tokens.size(); ++id) vocab.set(alphabet.text_of(toy.tokens[id]), id);
  for (const BpeMerge& merge : toy.merges)
    merges += alphabet.text_of(toy.tokens[merge.left]) + " " + alphabet.text_of(toy.tokens[merge.right]) + "\n";
  for (const SpecialToken& token : toy.specials) {
    Json& entry = decoder.set(std::to_string(token.id), nullptr);
    entry.set("content", token.text);
    entry.set("special", token.id < toy.specials[14].id);  // as in the published files, where <|fim_prefix|> is not "special"
  }
  Json config;
  config.set("added_tokens_decoder", decoder);
  config.set("tokenizer_class", "Qwen2Tokenizer");
  write_file(scratch / "parts/vocab.json", vocab.dump());
  write_file(scratch / "parts/merges.txt", merges);
  EXPECT_EQ(complaint_of([&] { read_bpe_vocabulary(scratch / "parts"); }),
            (scratch / "parts/tokenizer_config.json") + ": is missing; beside vocab.json and merges.txt it names the special tokens");
  write_file(scratch / "parts/tokenizer_config.json", config.dump());
  EXPECT_EQ(identity(scratch / "parts"), expected);

  write_file(scratch / "ranks/toy.tiktoken", tiktoken_of(toy));
  EXPECT_EQ(identity(scratch / "ranks"), expected);
  EXPECT_EQ(identity(scratch / "ranks/toy.tiktoken"), expected);
  const BpeVocabulary again = read_bpe_vocabulary(scratch / "ranks");
  EXPECT_EQ(again.tokens, toy.tokens);
  EXPECT_EQ(again.merges, toy.merges);
  EXPECT_EQ(again.specials, toy.specials);
}

TEST(BpeFiles, TheOtherFormsOfTokenizerJson) {
  ScratchFolder scratch;
  const BpeVocabulary toy = toy_vocabulary();
  write_tokenizer_json(toy, scratch / "");
  Json json = Json::parse_file(scratch / "tokenizer.json");
  Json::Array merges;
  for (const Json& merge : json.find("model")->find("merges")->array()) {  // ["a", "b"] instead of "a b"
    const std::size_t space = merge.string().find(' ');
    merges.push_back(Json::Array{merge.string().substr(0, space), merge.string().substr(space + 1)});
  }
  Json& model = member(json, "model");
  model.set("merges", merges);
  member(model, "vocab").set("<|endoftext|>", toy.specials[0].id);  // listed as an ordinary token too, as GPT-2 does
  write_file(scratch / "tokenizer.json", json.dump());
  EXPECT_EQ(identity(scratch / "tokenizer.json"), BpeTokenizer(toy).sha256());

  // A special token that only tokenizer_config.json knows is one more; one that contradicts is refused.
  Json config = Json::parse_file(scratch / "tokenizer_config.json");
  Json more;
  more.set("content", "<|more|>");
  member(config, "added_tokens_decoder").set("5000", more);
  write_file(scratch / "tokenizer_config.json", config.dump());
  EXPECT_EQ(make_tokenizer(scratch / "")->special_token("<|more|>"), 5000u);
  EXPECT_EQ(make_tokenizer(scratch / "")->vocab_size(), 5001);
  EXPECT_THROW(make_tokenizer(scratch / "")->decode(std::vector<std::uint32_t>{4000}), UserError);
  member(config, "added_tokens_decoder").set(std::to_string(toy.specials[0].id), more);
  write_file(scratch / "tokenizer_config.json", config.dump());
  EXPECT_NE(complaint_of([&] { make_tokenizer(scratch / ""); }).find("is '<|more|>' here and '<|endoftext|>' elsewhere"), std::string::npos);
}

TEST(BpeFiles, WhatIsNotComputedIsRefused) {
  ScratchFolder scratch;
  const std::string path = scratch / "tokenizer.json";
  write_tokenizer_json(toy_vocabulary(), scratch / "");
  const Json good = Json::parse_file(path);
  auto complaint = [&](auto&& change) {
    Json json = good;
    change(json);
    write_file(path, json.dump());
    return complaint_of([&] { read_bpe_vocabulary(path); });
  };
  EXPECT_EQ(complaint([](Json&) {}), "");
  auto at = [](Json& json, std::initializer_list<std::string_view> keys) -> Json& {
    Json* found = &json;
    for (std::string_view key : keys)
      found = key == "[0]" ? const_cast<Json*>(&found->array()[0]) : key == "[1]" ? const_cast<Json*>(&found->array()[1]) : &member(*found, key);
    return *found;
  };
  const std::vector<std::pair<std::string, std::function<void(Json&)>>> cases{
      {"normalizer: is null; this program computes 'NFC' only", [&](Json& j) { at(j, {"normalizer"}) = nullptr; }},
      {"normalizer: is the string \"NFKC\"; this program computes 'NFC' only",
       [&](Json& j) {
         at(j, {"normalizer", "type"}) = "NFKC";
       }},
      {"pre_tokenizer: is the string \"ByteLevel\"; this program computes 'Sequence' only",
       [&](Json& j) {
         at(j, {"pre_tokenizer", "type"}) = "ByteLevel";
       }},
      {"this program splits by Qwen's pattern only",
       [&](Json& j) {
         at(j, {"pre_tokenizer", "pretokenizers", "[0]", "pattern", "Regex"}) = "\\p{N}{1,3}";
       }},
      {"pretokenizers[0].behavior: is the string \"Removed\"",
       [&](Json& j) {
         at(j, {"pre_tokenizer", "pretokenizers", "[0]", "behavior"}) = "Removed";
       }},
      {"pretokenizers[0].invert: is true",
       [&](Json& j) {
         at(j, {"pre_tokenizer", "pretokenizers", "[0]", "invert"}) = true;
       }},
      {"pretokenizers[1].add_prefix_space: is true",
       [&](Json& j) {
         at(j, {"pre_tokenizer", "pretokenizers", "[1]", "add_prefix_space"}) = true;
       }},
      {"pretokenizers[1].use_regex: is true",
       [&](Json& j) {
         at(j, {"pre_tokenizer", "pretokenizers", "[1]", "use_regex"}) = true;
       }},
      {"expected two steps",
       [&](Json& j) {
         at(j, {"pre_tokenizer", "pretokenizers"}).push_back(nullptr);
       }},
      {"post_processor: is the string \"TemplateProcessing\"",
       [&](Json& j) {
         at(j, {"post_processor", "type"}) = "TemplateProcessing";
       }},
      {"truncation: is an object", [&](Json& j) { at(j, {"truncation"}) = Json::Object(); }},
      {"padding: is an object", [&](Json& j) { at(j, {"padding"}) = Json::Object(); }},
      {"model: is the string \"WordPiece\"; this program computes 'BPE' only",
       [&](Json& j) {
         at(j, {"model", "type"}) = "WordPiece";
       }},
      {"model.dropout: is the number 0.1",
       [&](Json& j) {
         at(j, {"model", "dropout"}) = 0.1;
       }},
      {"model.unk_token: is the string \"<unk>\"",
       [&](Json& j) {
         at(j, {"model", "unk_token"}) = "<unk>";
       }},
      {"model.end_of_word_suffix: is the string \"</w>\"",
       [&](Json& j) {
         at(j, {"model", "end_of_word_suffix"}) = "</w>";
       }},
      {"model.continuing_subword_prefix: is the string \"##\"",
       [&](Json& j) {
         at(j, {"model", "continuing_subword_prefix"}) = "##";
       }},
      {"model.byte_fallback: is true",
       [&](Json& j) {
         at(j, {"model", "byte_fallback"}) = true;
       }},
      {"model.ignore_merges: is true",
       [&](Json& j) {
         at(j, {"model", "ignore_merges"}) = true;
       }},
      {"added_tokens[0].lstrip: is true",
       [&](Json& j) {
         at(j, {"added_tokens", "[0]", "lstrip"}) = true;
       }},
      {"added_tokens[0].rstrip: is true",
       [&](Json& j) {
         at(j, {"added_tokens", "[0]", "rstrip"}) = true;
       }},
      {"added_tokens[0].single_word: is true",
       [&](Json& j) {
         at(j, {"added_tokens", "[0]", "single_word"}) = true;
       }},
      {"added_tokens[0].normalized: is true",
       [&](Json& j) {
         at(j, {"added_tokens", "[0]", "normalized"}) = true;
       }},
      {"-1 is no token id",
       [&](Json& j) {
         at(j, {"added_tokens", "[0]", "id"}) = -1;
       }},
      {"1048576 is no token id (0 to 1048575)",
       [&](Json& j) {
         at(j, {"model", "vocab"}).set("zz", 1 << 20);
       }},
      {"1048576 is no token id (0 to 1048575)",
       [&](Json& j) {
         at(j, {"added_tokens", "[0]", "id"}) = 1 << 20;
       }},
      {"the token 'a b' is not written in byte-level characters",
       [&](Json& j) {
         at(j, {"model", "vocab"}).set("a b", 900);
       }},
      {"two tokens have the id 7",
       [&](Json& j) {
         at(j, {"model", "vocab"}).set("zz", 7);
       }},
      {"needs the token 'zz', which does not exist",
       [&](Json& j) {
         at(j, {"model", "merges"}).push_back("zz zz");
       }},
      {"'zz' is no merge",
       [&](Json& j) {
         at(j, {"model", "merges"}).push_back("zz");
       }},
      {"needs the token 'ba', which does not exist",
       [&](Json& j) {
         at(j, {"model", "merges"}).push_back("b a");
       }},
      {"joins 'h' and 'e', as one before it does",
       [&](Json& j) {
         at(j, {"model", "merges"}).push_back("h e");
       }},
      {"no token stands for the byte 0x00",
       [&](Json& j) {
         at(j, {"model", "vocab"}) = Json::Object(), at(j, {"model", "merges"}) = Json::Array();
       }},
      {"has no \"vocab\"", [&](Json& j) { at(j, {"model"}) = Json::Object(), at(j, {"model"}).set("type", "BPE"); }},
  };
  for (const auto& [part, change] : cases) {
    const std::string found = complaint(change);
    EXPECT_TRUE(found.starts_with(path) && found.find(part) != std::string::npos) << "expected: " << part << "\nfound: " << found;
  }
}

TEST(BpeFiles, WrongRanksAndFolders) {
  ScratchFolder scratch;
  const std::string path = scratch / "x.tiktoken";
  auto complaint = [&](const std::string& text) {
    write_file(path, text);
    return complaint_of([&] { read_bpe_vocabulary(path); });
  };
  const std::string good = tiktoken_of(toy_vocabulary());
  EXPECT_EQ(complaint(good), "");
  EXPECT_EQ(complaint("IQ== 0\nIg== 2\n"), path + ":2: expected 'BASE64 1' (ranks go up by one), found 'Ig== 2'");
  EXPECT_EQ(complaint("IQ== 0\nI*== 1\n"), path + ":2: expected 'BASE64 1' (ranks go up by one), found 'I*== 1'");
  EXPECT_EQ(complaint("IQ==\n"), path + ":1: expected 'BASE64 0' (ranks go up by one), found 'IQ=='");
  EXPECT_NE(complaint(good + base64("xyz") + " 267\n").find("the token of rank 267 is made of 3 tokens of lower rank, not of two"),
            std::string::npos);
  EXPECT_EQ(complaint("IQ== 0\n"), path + ": no token stands for the byte 0x00");
  EXPECT_EQ(complaint_of([&] { make_tokenizer(scratch / "nowhere"); }),
            (scratch / "nowhere") + ": there is no such tokenizer; expected a folder or a file, or the name 'bytes'");
  fs::create_directory(scratch / "empty");
  EXPECT_NE(complaint_of([&] { make_tokenizer(scratch / "empty"); }).find("holds no tokenizer; expected tokenizer.json"), std::string::npos);
  write_file(scratch / "a.bin", "");
  EXPECT_NE(complaint_of([&] { make_tokenizer(scratch / "a.bin"); }).find("expected a folder, a tokenizer.json or a .tiktoken file"),
            std::string::npos);
}

}  // namespace
}  // namespace af
