// Questions as tokens. Only the words around a candidate are tokenized again with each candidate in its place: a document of 100,000
// tokens has many decisions.
#include <algorithm>

#include "core/error.h"
#include "launch/eval_question.h"

namespace af {
namespace {

using Tokens = std::vector<std::uint32_t>;

constexpr std::size_t kAround = 96;  // bytes on either side, a few words

Tokens encode(Encoder& encoder, std::string_view text) {
  Tokens tokens;
  encoder.encode(text, SpecialTokens::split, tokens);
  return tokens;
}

// The document as its tokens spell it.
struct Spelled {
  std::string text;
  Tokens tokens;
  std::vector<std::size_t> begins;  // of each token, and where the last one ends

  std::size_t token_at(std::size_t byte) const {  // that holds it
    return std::size_t(std::upper_bound(begins.begin(), begins.end(), byte) - begins.begin()) - 1;
  }
};

Spelled spell(Encoder& encoder, const std::string& text) {
  Spelled out{text, encode(encoder, text), {0}};
  for (const std::uint32_t token : out.tokens) out.begins.push_back(out.begins.back() + encoder.tokenizer().bytes_of(token).size());
  return out;
}

// What the tokens of a part of the document become with a candidate in place of [begin, end).
class Window {
 public:
  Window(Encoder& encoder, const Spelled& document, std::size_t begin, std::size_t end)
      : encoder_(encoder), document_(document), begin_(begin), end_(end) {
    first_ = document.token_at(begin > kAround ? begin - kAround : 0);
    last_ = std::min(document.tokens.size(), document.token_at(end + kAround) + 1);
    if (end + kAround >= document.text.size()) last_ = document.tokens.size();
    const Tokens expected(document.tokens.begin() + std::ptrdiff_t(first_), document.tokens.begin() + std::ptrdiff_t(last_));
    if (with(document.text.substr(begin, end - begin)) != expected) first_ = 0, last_ = document.tokens.size();  // words that hang together
  }
  std::size_t first() const { return first_; }
  // All tokens of the window.
  Tokens with(std::string_view candidate) const {
    const std::string_view text = document_.text;
    const std::size_t from = document_.begins[first_], to = document_.begins[last_];
    return encode(encoder_, std::string(text.substr(from, begin_ - from)).append(candidate).append(text.substr(end_, to - end_)));
  }
  // How many of these tokens begin before the candidate's end.
  std::size_t up_to_end(const Tokens& tokens, std::string_view candidate) const {
    std::size_t bytes = 0, count = 0;
    const std::size_t end = begin_ - document_.begins[first_] + candidate.size();
    while (count < tokens.size() && bytes < end) bytes += encoder_.tokenizer().bytes_of(tokens[count++]).size();
    return count;
  }

 private:
  Encoder& encoder_;
  const Spelled& document_;
  std::size_t begin_, end_, first_ = 0, last_ = 0;  // first_, last_: tokens
};

// Where the candidates differ in their first token alone, it decides: what follows it is the same in all, and all but certain.
void keep_what_differs(std::vector<std::vector<std::int32_t>>& candidates) {
  const auto& one = candidates.front();
  const auto same_rest = [&](const auto& other) { return other.size() == one.size() && std::equal(other.begin() + 1, other.end(), one.begin() + 1); };
  if (!std::all_of(candidates.begin(), candidates.end(), same_rest)) return;
  for (auto& candidate : candidates) candidate.resize(1);
}

TokenizedQuestion tokenize_question(Encoder& encoder, const Spelled& document, std::size_t begin, std::size_t end, const LikelihoodQuestion& question,
                                    const std::string& sample) {
  const Window window(encoder, document, begin, end);
  std::vector<Tokens> tokens;
  for (const std::string& candidate : question.candidates) {
    const std::string spelled(encoder.normalised(candidate, SpecialTokens::split));
    Tokens all = window.with(spelled);
    all.resize(window.up_to_end(all, spelled));
    tokens.push_back(std::move(all));
  }
  std::size_t common = tokens.front().size();  // the longest beginning that all have, but for one token of each at least
  for (const Tokens& other : tokens) {
    const auto [a, b] = std::mismatch(tokens.front().begin(), tokens.front().end(), other.begin(), other.end());
    common = std::min({common, std::size_t(a - tokens.front().begin()), other.size() - 1});
  }
  TokenizedQuestion out;
  out.position = std::int64_t(window.first() + common);
  if (out.position == 0) user_error("sample {}: nothing stands before the {} that is asked for", sample, name_of(question.kind));
  for (const Tokens& t : tokens) out.candidates.emplace_back(t.begin() + std::ptrdiff_t(common), t.end());
  if (question.kind != QuestionKind::option) keep_what_differs(out.candidates);  // an option's rest says how well the word before fitted
  return out;
}

}  // namespace

bool TokenizedQuestion::one_token() const {
  return std::all_of(candidates.begin(), candidates.end(), [](const auto& c) { return c.size() == 1; });
}

TokenizedDocument tokenize_document(Encoder& encoder, const Sample& sample, std::span<const LikelihoodQuestion> questions) {
  const std::string text = text_of(sample);
  const auto spelled_size = [&](std::size_t begin, std::size_t end) {
    return encoder.normalised(std::string_view(text).substr(begin, end - begin), SpecialTokens::split).size();
  };
  const Spelled document = spell(encoder, std::string(encoder.normalised(text, SpecialTokens::split)));
  TokenizedDocument out;
  out.tokens.assign(document.tokens.begin(), document.tokens.end());
  for (const LikelihoodQuestion& question : questions) {
    const std::size_t begin = spelled_size(0, question.begin);
    out.questions.push_back(tokenize_question(encoder, document, begin, begin + spelled_size(question.begin, question.end), question, sample.id));
  }
  return out;
}

}  // namespace af
