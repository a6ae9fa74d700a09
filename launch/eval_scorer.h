// How likely each candidate of each question is. Documents go through the model packed, once each; then the candidates of several tokens,
// a round for each, of all documents together, on the keys and values that the documents left in the cache.
#pragma once
#include <functional>
#include <span>
#include <vector>

#include "launch/eval_model.h"
#include "launch/eval_question.h"

namespace af {

// log_likelihoods[document][question][candidate], natural logarithm, given the tokens before. They do not depend on what is packed together.
using LogLikelihoods = std::vector<std::vector<std::vector<double>>>;

class Scorer {
 public:
  static constexpr std::int64_t kPackTokens = 4096;  // in one forward; a longer document goes alone
  explicit Scorer(EvalModel& model) : model_(model) {}

  // done(n): n documents are. A document that is longer than the model's positions is a bug (InternalError).
  LogLikelihoods score(std::span<const TokenizedDocument> documents, const std::function<void(std::size_t)>& done);
  double seconds() const { return seconds_; }           // in the model
  std::int64_t tokens() const { return tokens_; }       // of documents, through the model
  static std::int64_t needed_tokens(const TokenizedDocument& document);  // up to its last question, with the longest candidate

 private:
  struct Pack;
  void score_pack(std::span<const TokenizedDocument> documents, std::span<std::vector<std::vector<double>>> out);
  void score_documents(Pack& pack);
  void score_candidates(Pack& pack);

  EvalModel& model_;
  double seconds_ = 0;
  std::int64_t tokens_ = 0;
};

}  // namespace af
