#include "data/bigram.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "core/error.h"

namespace af {
namespace {

// Calls f(a, b, counted) for every pair of neighbours in a document; a < 0 for a document's first token.
template <class F>
void for_each_pair(TokenDataset& dataset, F&& f) {
  constexpr std::int64_t kBlock = 1 << 20;
  std::vector<std::uint32_t> tokens(kBlock);
  std::vector<std::uint8_t> mask(kBlock);
  std::int64_t document = 0, previous = -1;
  for (std::int64_t begin = 0; begin < dataset.num_tokens(); begin += kBlock) {
    std::int64_t count = std::min(kBlock, dataset.num_tokens() - begin);
    dataset.read(begin, count, tokens.data());
    dataset.read_loss_mask(begin, count, mask.data());
    for (std::int64_t i = 0; i < count; ++i) {
      if (begin + i == dataset.offsets()[std::size_t(document)]) previous = -1, ++document;
      f(previous, tokens[std::size_t(i)], mask[std::size_t(i)]);
      previous = tokens[std::size_t(i)];
    }
  }
}

std::uint64_t pair_key(std::int64_t a, std::uint32_t b) { return std::uint64_t(a) << 32 | b; }

}  // namespace

BigramLoss bigram_loss(TokenDataset& train, TokenDataset& heldout) {
  if (train.info().tokenizer_sha256 != heldout.info().tokenizer_sha256 || train.info().vocab_size != heldout.info().vocab_size) {
    user_error("{} and {} were made with different tokenizers: their losses cannot be compared", train.path(), heldout.path());
  }
  const std::size_t vocab = std::size_t(train.info().vocab_size);
  std::vector<std::int64_t> count(vocab, 0), followed(vocab, 0), followers(vocab, 0);
  std::unordered_map<std::uint64_t, std::int64_t> pairs;
  for_each_pair(train, [&](std::int64_t a, std::uint32_t b, bool) {
    ++count[b];
    if (a < 0) return;
    ++followed[std::size_t(a)];
    followers[std::size_t(a)] += ++pairs[pair_key(a, b)] == 1;
  });
  const double types = double(vocab - std::size_t(std::count(count.begin(), count.end(), 0)));
  auto unigram = [&](std::uint32_t b) { return (double(count[b]) + types / double(vocab)) / (double(train.num_tokens()) + types); };

  BigramLoss loss;
  double sum = 0;
  for_each_pair(heldout, [&](std::int64_t a, std::uint32_t b, bool counted) {
    if (a < 0 || !counted) return;
    auto pair = pairs.find(pair_key(a, b));
    const double together = pair == pairs.end() ? 0 : double(pair->second), novel = double(followers[std::size_t(a)]);
    sum -= std::log(novel == 0 ? unigram(b) : (together + novel * unigram(b)) / (double(followed[std::size_t(a)]) + novel));
    ++loss.targets;
  });
  loss.nats_per_token = loss.targets > 0 ? sum / double(loss.targets) : 0;
  return loss;
}

}  // namespace af
