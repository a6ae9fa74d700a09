#include "data/tokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "core/error.h"
#include "data/byte_tokenizer.h"
#include "data/sha256.h"

namespace af {
namespace {

using Ids = std::vector<std::uint32_t>;

Ids encoded(const std::string& text, SpecialTokens specials = SpecialTokens::split) {
  Ids ids;
  ByteTokenizer tokenizer;
  tokenizer.encoder()->encode(text, specials, ids);
  return ids;
}

TEST(Sha256, PublishedVectors) {  // FIPS 180-2, appendix B
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  Sha256 million;
  for (int i = 0; i < 1000; ++i) million.update(std::string(1000, 'a'));
  EXPECT_EQ(million.hex(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(ByteTokenizer, SpecialTokensInQwensOrder) {
  ByteTokenizer tokenizer;
  // Qwen's own ids, facts of its tokenizer.json: 151643 is <|endoftext|>, ..., 151668 </think>
  const std::pair<const char*, std::uint32_t> qwen[] = {
      {"<|endoftext|>", 151643}, {"<|im_start|>", 151644},    {"<|im_end|>", 151645},       {"<|object_ref_start|>", 151646},
      {"<|box_end|>", 151649},   {"<|quad_start|>", 151650},  {"<|vision_pad|>", 151654},   {"<|video_pad|>", 151656},
      {"<tool_call>", 151657},   {"</tool_call>", 151658},    {"<|fim_prefix|>", 151659},   {"<|repo_name|>", 151663},
      {"<|file_sep|>", 151664},  {"<tool_response>", 151665}, {"</tool_response>", 151666}, {"<think>", 151667},
      {"</think>", 151668}};
  for (auto [text, id] : qwen) {
    EXPECT_EQ(tokenizer.special_token(text), id - 151643 + 256) << text;
    EXPECT_EQ(encoded(text, SpecialTokens::recognise), Ids{id - 151643 + 256}) << text;
    EXPECT_EQ(tokenizer.decode(Ids{id - 151643 + 256}), text);
  }
  EXPECT_EQ(tokenizer.eod_token(), 256u);
  EXPECT_THROW(tokenizer.special_token("<|nothing|>"), UserError);
  EXPECT_THROW(tokenizer.decode(Ids{282}), UserError);
  EXPECT_THROW(tokenizer.decode(Ids{100000}), UserError);
  EXPECT_THROW(make_tokenizer("qwen/"), UserError);
  EXPECT_EQ(make_tokenizer("bytes")->sha256(), tokenizer.sha256());
}

TEST(ByteTokenizer, ControlCannotBeForged) {
  for (const SpecialToken& token : qwen_special_tokens(256)) {
    Ids ids = encoded("x" + std::string(token.text) + "y");
    if (token.control) {
      for (std::uint32_t id : ids) EXPECT_LT(id, 256u) << token.text;
      EXPECT_EQ(ids.size(), token.text.size() + 2);
    } else {
      EXPECT_EQ(ids.size(), 3u) << token.text;
    }
    EXPECT_EQ(encoded("x" + std::string(token.text) + "y", SpecialTokens::recognise).size(), 3u);
  }
  EXPECT_EQ(encoded("<<think>>"), (Ids{'<', 280, '>'}));
  EXPECT_EQ(encoded("<think><think", SpecialTokens::recognise), (Ids{280, '<', 't', 'h', 'i', 'n', 'k'}));
  EXPECT_EQ(encoded("<|im_end|", SpecialTokens::recognise).size(), 9u);
}

TEST(ByteTokenizer, DecodeGivesTheTextBack) {
  std::mt19937 random(1);
  std::string all;
  for (int i = 0; i < 256; ++i) all += char(i);
  const std::vector<std::string> pieces{"<",      ">",    "|", "<|", "im_end", "<think>", "</think>", "<|im_start|>", "<|endoftext|>", "</tool_call>",
                                        "\u00fc", "\xff", all};
  for (int trial = 0; trial < 2000; ++trial) {
    std::string text;
    for (unsigned n = random() % 12; n > 0; --n) text += pieces[random() % pieces.size()];
    for (SpecialTokens specials : {SpecialTokens::split, SpecialTokens::recognise}) {
      Ids ids = encoded(text, specials);
      ASSERT_EQ(ByteTokenizer().decode(ids), text);
      for (std::uint32_t id : ids) ASSERT_LT(id, 282u);
    }
  }
}

}  // namespace
}  // namespace af
