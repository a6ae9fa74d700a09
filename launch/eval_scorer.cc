#include "launch/eval_scorer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "models/decoder.h"

namespace af {
namespace {

// Tokens that go into the first forward: all before the last question.
std::int64_t prefix_of(const TokenizedDocument& document) {
  std::int64_t last = 0;
  for (const TokenizedQuestion& question : document.questions) last = std::max(last, question.position);
  return last;
}

std::vector<std::int64_t> capacities_of(std::span<const TokenizedDocument> documents) {
  std::vector<std::int64_t> capacities;
  for (const TokenizedDocument& document : documents) capacities.push_back(Scorer::needed_tokens(document));
  return capacities;
}

double log_sum_exp(std::span<const float> logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(double(x) - most);
  return most + std::log(sum);
}

}  // namespace

std::int64_t Scorer::needed_tokens(const TokenizedDocument& document) {
  std::int64_t needed = 1;
  for (const TokenizedQuestion& question : document.questions)
    for (const auto& candidate : question.candidates) needed = std::max(needed, question.position + std::int64_t(candidate.size()));
  return needed;
}

struct Scorer::Pack {
  std::span<const TokenizedDocument> documents;
  std::span<std::vector<std::vector<double>>> out;
  Decoder decoder;
};

// The documents, and all questions whose candidates are single tokens.
void Scorer::score_documents(Pack& pack) {
  std::vector<Decoder::Piece> pieces;
  struct Asked {
    std::size_t document, question;
  };
  std::vector<Asked> asked;
  std::vector<std::int32_t> rows;
  std::int64_t begin = 0;
  for (std::size_t d = 0; d < pack.documents.size(); ++d) {
    const TokenizedDocument& document = pack.documents[d];
    const std::int64_t count = prefix_of(document);
    if (count == 0) continue;
    pieces.push_back({int(d), std::span(document.tokens).first(std::size_t(count))});
    for (std::size_t q = 0; q < document.questions.size(); ++q) {
      if (!document.questions[q].one_token()) continue;
      asked.push_back({d, q});
      rows.push_back(std::int32_t(begin + document.questions[q].position - 1));
    }
    begin += count;
  }
  if (pieces.empty()) return;
  tokens_ += begin;
  if (rows.empty()) rows.push_back(0);
  const Context& context = model_.context();
  Arena::Scope scope(context.scratch);
  const Tensor logits = context.scratch.tensor({std::int64_t(rows.size()), model_.config().vocab_size}, pack.decoder.accumulator());
  pack.decoder.logits(pieces, rows, logits);
  for (std::size_t i = 0; i < asked.size(); ++i) {
    const std::span<const float> row(logits.as<float>() + std::int64_t(i) * logits.stride, std::size_t(logits.cols()));
    const double total = log_sum_exp(row);
    const TokenizedQuestion& question = pack.documents[asked[i].document].questions[asked[i].question];
    for (std::size_t c = 0; c < question.candidates.size(); ++c)
      pack.out[asked[i].document][asked[i].question][c] = double(row[std::size_t(question.candidates[c][0])]) - total;
  }
}

// Questions with longer candidates: in each document from the last one to the first, so that what a candidate leaves in the cache stands
// behind all that is asked later.
void Scorer::score_candidates(Pack& pack) {
  struct Work {
    std::size_t question, candidate;
  };
  std::vector<std::vector<Work>> work(pack.documents.size());
  std::size_t rounds = 0;
  for (std::size_t d = 0; d < work.size(); ++d) {
    const std::vector<TokenizedQuestion>& questions = pack.documents[d].questions;
    for (std::size_t q = 0; q < questions.size(); ++q)
      for (std::size_t c = 0; !questions[q].one_token() && c < questions[q].candidates.size(); ++c) work[d].push_back({q, c});
    std::stable_sort(work[d].begin(), work[d].end(), [&](const Work& a, const Work& b) { return questions[a.question].position > questions[b.question].position; });
    rounds = std::max(rounds, work[d].size());
  }
  const Context& context = model_.context();
  for (std::size_t round = 0; round < rounds; ++round) {
    std::vector<std::vector<std::int32_t>> inputs(work.size());
    std::vector<Decoder::Piece> pieces;
    std::vector<std::int32_t> targets;
    for (std::size_t d = 0; d < work.size(); ++d) {
      if (round >= work[d].size()) continue;
      const TokenizedQuestion& question = pack.documents[d].questions[work[d][round].question];
      const std::vector<std::int32_t>& candidate = question.candidates[work[d][round].candidate];
      pack.decoder.truncate(int(d), question.position - 1);  // the token before is run again, for what it says of the first
      inputs[d] = {pack.documents[d].tokens[std::size_t(question.position - 1)]};
      inputs[d].insert(inputs[d].end(), candidate.begin(), candidate.end() - 1);
      pieces.push_back({int(d), inputs[d]});
      targets.insert(targets.end(), candidate.begin(), candidate.end());
    }
    Arena::Scope scope(context.scratch);
    const Tensor losses = context.scratch.tensor({std::int64_t(targets.size())}, pack.decoder.accumulator());
    pack.decoder.losses(pieces, targets, losses);
    std::int64_t row = 0;
    for (std::size_t d = 0; d < work.size(); ++d) {
      if (round >= work[d].size()) continue;
      double sum = 0;
      for (std::size_t i = 0; i < inputs[d].size(); ++i) sum -= double(losses.as<float>()[row++]);
      pack.out[d][work[d][round].question][work[d][round].candidate] = sum;
    }
  }
}

void Scorer::score_pack(std::span<const TokenizedDocument> documents, std::span<std::vector<std::vector<double>>> out) {
  for (std::size_t d = 0; d < documents.size(); ++d) {
    AF_CHECK(needed_tokens(documents[d]) <= model_.max_tokens(), "a document of {} tokens for {} positions", needed_tokens(documents[d]), model_.max_tokens());
    for (const TokenizedQuestion& question : documents[d].questions) out[d].emplace_back(question.candidates.size());
  }
  Pack pack{documents, out, Decoder(model_.model(), model_.context(), capacities_of(documents))};
  score_documents(pack);
  score_candidates(pack);
}

LogLikelihoods Scorer::score(std::span<const TokenizedDocument> documents, const std::function<void(std::size_t)>& done) {
  const auto begin_time = std::chrono::steady_clock::now();
  LogLikelihoods out(documents.size());
  for (std::size_t begin = 0; begin < documents.size();) {
    std::size_t end = begin;
    std::int64_t tokens = 0;
    for (; end < documents.size(); ++end) {
      const std::int64_t own = needed_tokens(documents[end]);
      if (end > begin && tokens + own > kPackTokens) break;
      tokens += own;
    }
    score_pack(documents.subspan(begin, end - begin), std::span(out).subspan(begin, end - begin));
    done(begin = end);
  }
  seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_time).count();
  return out;
}

}  // namespace af
