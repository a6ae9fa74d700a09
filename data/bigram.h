// The baseline that a trained model has to beat: an interpolated bigram model of the same tokens.
//   P(b)     = (count(b) + types / vocab_size) / (tokens + types)              types: distinct tokens
//   P(b | a) = (count(a b) + followers(a) P(b)) / (count(a) + followers(a))    followers: distinct tokens after a
// (Witten-Bell smoothing; count(a) counts a where something follows it in its document.)
#pragma once
#include <cstdint>

#include "data/token_dataset.h"

namespace af {

struct BigramLoss {
  double nats_per_token = 0;  // mean of -ln P(b | a) over the targets
  std::int64_t targets = 0;   // as in training: every token but the first of a document, within the loss mask
};

// Trains on all documents of `train`, evaluates on the whole of `heldout`. UserError where their vocabularies differ.
BigramLoss bigram_loss(TokenDataset& train, TokenDataset& heldout);

}  // namespace af
