#include "data/bpe_tokenizer.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <unordered_set>

#include "core/error.h"
#include "data/sha256.h"

namespace af {
namespace {

constexpr std::uint32_t kNoToken = 0xffffffff;

std::array<std::uint32_t, 256> byte_tokens_of(const std::vector<std::string>& tokens) {
  std::array<std::uint32_t, 256> ids;
  ids.fill(kNoToken);
  for (std::uint32_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].size() == 1) ids[static_cast<unsigned char>(tokens[id][0])] = id;
  }
  return ids;
}

std::string sha256_of(const BpeVocabulary& vocabulary) {
  Sha256 sha;
  std::string line;
  auto add = [&]<class... Args>(fmt::format_string<Args...> format, Args&&... args) {
    line.clear();
    fmt::format_to(std::back_inserter(line), format, std::forward<Args>(args)...);
    sha.update(line);
  };
  add("af byte-level bpe 1\nNFC\n{}\n", kQwenSplitPattern);
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& token = vocabulary.tokens[id];
    if (!token.empty()) add("token {} {} {}\n", id, token.size(), token);
  }
  for (const BpeMerge& merge : vocabulary.merges) add("merge {} {} {}\n", merge.left, merge.right, merge.result);
  std::vector<SpecialToken> specials = vocabulary.specials;
  std::sort(specials.begin(), specials.end(), [](const SpecialToken& a, const SpecialToken& b) { return a.id < b.id; });
  for (const SpecialToken& token : specials) add("special {} {} {}\n", token.id, token.control ? "control" : "text", token.text);
  return sha.hex();
}

}  // namespace

std::string problem_of(const BpeVocabulary& vocabulary) {
  const std::vector<std::string>& tokens = vocabulary.tokens;
  std::unordered_set<std::string_view> known;
  for (const std::string& token : tokens) {
    if (!token.empty() && !known.insert(token).second) return fmt::format("two ids spell '{}'", token);
  }
  std::array<std::uint32_t, 256> bytes = byte_tokens_of(tokens);
  for (std::size_t byte = 0; byte < bytes.size(); ++byte) {
    if (bytes[byte] == kNoToken) return fmt::format("no token stands for the byte 0x{:02x}", byte);
  }
  BpeMerges merges(bytes, vocabulary.merges.size());
  for (std::size_t i = 0; i < vocabulary.merges.size(); ++i) {
    const BpeMerge& merge = vocabulary.merges[i];
    for (std::uint32_t id : {merge.left, merge.right, merge.result}) {
      if (id >= tokens.size() || tokens[id].empty()) return fmt::format("merge {} needs the token {}, which does not exist", i, id);
    }
    if (tokens[merge.left] + tokens[merge.right] != tokens[merge.result]) {
      return fmt::format("merge {} makes '{}' of '{}' and '{}'", i, tokens[merge.result], tokens[merge.left], tokens[merge.right]);
    }
    if (!merges.add(merge)) return fmt::format("merge {} joins '{}' and '{}', as one before it does", i, tokens[merge.left], tokens[merge.right]);
  }
  std::set<std::string> texts;
  std::set<std::uint32_t> ids;
  for (const SpecialToken& token : vocabulary.specials) {
    if (token.text.empty()) return fmt::format("the special token {} is empty", token.id);
    if (!texts.insert(token.text).second) return fmt::format("the special token '{}' has two ids", token.text);
    if (!ids.insert(token.id).second) return fmt::format("the id {} is that of two special tokens", token.id);
    if (token.id < tokens.size() && !tokens[token.id].empty()) {
      return fmt::format("the id {} is that of the special token '{}' and of the token '{}'", token.id, token.text, tokens[token.id]);
    }
  }
  return "";
}

// A word of at most 31 bytes that makes at most 8 tokens is remembered in a table that forgets: each word has one place,
// where the newest stays. 64 bytes an entry, 4 MB in all.
class BpeEncoder : public Encoder {
 public:
  explicit BpeEncoder(const BpeTokenizer& tokenizer) : Encoder(tokenizer), bpe_(tokenizer), words_(std::size_t(1) << kLogWords) {}

 protected:
  std::string_view normalised_ordinary(std::string_view text) override { return bpe_.unicode_.nfc(text, text_); }

  void encode_ordinary(std::string_view raw, std::vector<std::uint32_t>& out) override {
    const std::string_view text = bpe_.unicode_.nfc(raw, text_);
    std::array<std::uint32_t, 512> ids;  // on their way out: one insertion for many
    std::size_t count = 0;
    for (std::size_t at = 0, end; at < text.size(); at = end) {
      end = bpe_.splitter_.word_end(text, at);
      if (count + kMostIds > ids.size()) {
        out.insert(out.end(), ids.begin(), ids.begin() + count);
        count = 0;
      }
      const std::size_t size = end - at;
      if (size > kMostBytes) {
        out.insert(out.end(), ids.begin(), ids.begin() + count);
        count = 0;
        bpe_.merges_.encode(text.substr(at, size), buffers_, out);
        continue;
      }
      const Key key = key_of(text, at, size);
      Word& word = words_[place_of(key)];
      if (differ(word.key, key)) {
        fresh_.clear();
        bpe_.merges_.encode(text.substr(at, size), buffers_, fresh_);
        if (fresh_.size() > kMostIds) {
          out.insert(out.end(), ids.begin(), ids.begin() + count);
          out.insert(out.end(), fresh_.begin(), fresh_.end());
          count = 0;
          continue;
        }
        word.key = key;
        word.ids.fill(kNoToken);
        std::copy(fresh_.begin(), fresh_.end(), word.ids.begin());
      }
      std::copy(word.ids.begin(), word.ids.end(), ids.begin() + count);
      for (std::uint32_t id : word.ids) count += id != kNoToken;
    }
    out.insert(out.end(), ids.begin(), ids.begin() + count);
  }

 private:
  static constexpr std::size_t kMostBytes = 31, kMostIds = 8;
  static constexpr int kLogWords = 16;
  using Key = std::array<std::uint64_t, 4>;  // the bytes, zeros, and in the last byte how many there are
  struct alignas(64) Word {
    Key key{};  // of no bytes: no word
    std::array<std::uint32_t, kMostIds> ids{};
  };

  static Key key_of(std::string_view text, std::size_t at, std::size_t size) {
    Key key{};
    if (at + sizeof key <= text.size()) {
      std::memcpy(&key, text.data() + at, sizeof key);
      for (std::size_t i = 0; i < key.size(); ++i) {
        const std::size_t bytes = size < 8 * i ? 0 : std::min<std::size_t>(size - 8 * i, 8);
        key[i] &= bytes == 8 ? ~std::uint64_t(0) : (std::uint64_t(1) << 8 * bytes) - 1;
      }
    } else {
      std::memcpy(&key, text.data() + at, size);
    }
    key[3] |= std::uint64_t(size) << 56;
    return key;
  }

  static bool differ(const Key& a, const Key& b) {  // in registers, which == of arrays is not
    return ((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3])) != 0;
  }

  static std::size_t place_of(const Key& key) {
    const std::uint64_t sum = key[0] * 0x9e3779b97f4a7c15 ^ key[1] * 0xc2b2ae3d27d4eb4f ^ key[2] * 0x165667b19e3779f9 ^ key[3] * 0xd6e8feb86659fd93;
    return (sum ^ sum >> 29) * 0x9e3779b97f4a7c15 >> (64 - kLogWords);
  }

  const BpeTokenizer& bpe_;
  std::vector<Word> words_;
  std::vector<std::uint32_t> fresh_;
  BpeMerges::Buffers buffers_;
  std::string text_;
};

BpeTokenizer::BpeTokenizer(BpeVocabulary vocabulary)
    : Tokenizer(vocabulary.specials),
      tokens_(vocabulary.tokens),
      sha256_(sha256_of(vocabulary)),
      splitter_(unicode_),
      merges_(byte_tokens_of(vocabulary.tokens), vocabulary.merges.size()) {
  for (const BpeMerge& merge : vocabulary.merges) AF_CHECK(merges_.add(merge), "the pair {} {} merges twice", merge.left, merge.right);
  for (const SpecialToken& token : vocabulary.specials) {
    if (token.id >= tokens_.size()) tokens_.resize(std::size_t(token.id) + 1);
    tokens_[token.id] = token.text;
  }
}

std::unique_ptr<Encoder> BpeTokenizer::encoder() const { return std::make_unique<BpeEncoder>(*this); }

}  // namespace af
