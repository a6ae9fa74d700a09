// af_data inspect and verify: what a token dataset holds, and whether it is whole.
#include <algorithm>
#include <bit>
#include <cstdio>

#include "core/error.h"
#include "data/bigram.h"
#include "data/token_dataset.h"
#include "data/tokenizer.h"
#include "launch/data_commands.h"

namespace af {
namespace {

void print_lengths(const TokenDataset& dataset) {
  std::vector<std::int64_t> documents(64, 0), tokens(64, 0);  // by the length's bits: [2^(i-1), 2^i)
  for (std::int64_t d = 0; d < dataset.num_documents(); ++d) {
    std::int64_t length = dataset.offsets()[std::size_t(d) + 1] - dataset.offsets()[std::size_t(d)];
    std::size_t bits = std::bit_width(std::uint64_t(length));
    ++documents[bits];
    tokens[bits] += length;
  }
  std::int64_t most = *std::max_element(documents.begin(), documents.end());
  fmt::print("\nlength of documents (tokens)     documents   share of tokens\n");
  for (std::size_t bits = 0; bits < documents.size(); ++bits) {
    if (documents[bits] == 0) continue;
    fmt::print("  {:>9} ... {:<9} {:>14} {:>14.1f} %  {}\n", std::int64_t{1} << (bits - 1), (std::int64_t{1} << bits) - 1, documents[bits],
               100.0 * double(tokens[bits]) / double(dataset.num_tokens()), std::string(std::size_t((40 * documents[bits] + most - 1) / most), '#'));
  }
}

// Tokens per role and within the loss mask.
void print_roles(TokenDataset& dataset) {
  if (!dataset.has_roles() && !dataset.has_loss_mask()) return;
  constexpr std::int64_t kBlock = 1 << 20;
  std::vector<std::uint8_t> roles(kBlock), mask(kBlock);
  std::vector<std::int64_t> count(256, 0);
  std::int64_t counted = 0;
  for (std::int64_t begin = 0; begin < dataset.num_tokens(); begin += kBlock) {
    std::int64_t n = std::min(kBlock, dataset.num_tokens() - begin);
    dataset.read_roles(begin, n, roles.data());
    dataset.read_loss_mask(begin, n, mask.data());
    for (std::int64_t i = 0; i < n; ++i) ++count[roles[std::size_t(i)]], counted += mask[std::size_t(i)];
  }
  const double percent = 100.0 / double(dataset.num_tokens());
  fmt::print("\ntokens per role\n");
  for (std::size_t role = 0; role < kRoleNames.size(); ++role) {
    if (count[role] > 0) fmt::print("  {:<12} {:>14} {:>7.1f} %\n", kRoleNames[role], count[role], double(count[role]) * percent);
  }
  if (dataset.has_loss_mask()) fmt::print("  counted as targets {:>8} {:>7.1f} %\n", counted, double(counted) * percent);
}

// The text of tokens, safe to print on a terminal.
std::string printable(const std::string& text) {
  std::string safe;
  for (char c : text) {
    bool plain = static_cast<unsigned char>(c) >= 32 && c != 127;
    safe += plain || c == '\n' || c == '\t' ? std::string(1, c) : fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  return safe;
}

void print_sample(const TokenDataset& dataset, std::int64_t most) {
  std::int64_t n = std::min(most, dataset.offsets()[1]);
  if (n <= 0) return;
  std::vector<std::uint32_t> tokens(static_cast<std::size_t>(n));
  dataset.read(0, n, tokens.data());
  std::unique_ptr<Tokenizer> tokenizer = make_tokenizer("bytes");
  fmt::print("\nthe first {} tokens of document 0\n", n);
  if (tokenizer->sha256() == dataset.info().tokenizer_sha256) {
    fmt::print("{}\n", printable(tokenizer->decode(tokens)));
  } else {
    for (std::uint32_t token : tokens) fmt::print("{} ", token);
    fmt::print("(ids of another tokenizer)\n");
  }
}

int inspect(const Arguments& arguments) {
  const std::int64_t sample = arguments.integer("--sample", 400);
  TokenDataset dataset(arguments.positionals()[0]);
  const TokenDatasetInfo& info = dataset.info();
  fmt::print(
      "{}\n  documents          {}\n  tokens             {}\n  source             {}\n  tokenizer_sha256   {}\n  vocab_size         {}\n  "
      "eod_token_id       {}\n",
      dataset.path(), dataset.num_documents(), dataset.num_tokens(), info.source, info.tokenizer_sha256, info.vocab_size, info.eod_token_id);
  if (dataset.num_documents() == 0) return kExitDone;
  print_lengths(dataset);
  print_roles(dataset);
  print_sample(dataset, sample);
  if (arguments.has("--bigram")) {
    TokenDataset heldout(arguments.value("--bigram"));
    BigramLoss loss = bigram_loss(dataset, heldout);
    fmt::print("\nbigram model of {} on {}: {:.4f} nats per token over {} targets\n", dataset.path(), heldout.path(), loss.nats_per_token,
               loss.targets);
  }
  return kExitDone;
}

int verify(const Arguments& arguments) {
  std::string problems;
  for (const std::string& path : arguments.positionals()) {
    try {
      std::vector<std::string> found = problems_of_dataset(path);
      for (const std::string& problem : found) problems += problem + "\n";
      if (found.empty()) fmt::print("{}: whole\n", path);
    } catch (const UserError& error) {
      problems += std::string(error.what()) + "\n";
    }
  }
  if (problems.empty()) return kExitDone;
  problems.pop_back();
  throw UserError(problems);
}

}  // namespace

Command inspect_command() {
  return {"inspect",
          "shows what a token dataset holds",
          "X.h5",
          1,
          1,
          {{"--sample", Takes::one_value, "N", "tokens of the first document to show (default 400)", {}, false},
           {"--bigram",
            Takes::one_value,
            "HELDOUT.h5",
            "loss on it, in nats per token, of a bigram model of X.h5: what a trained model has to beat",
            {},
            false}},
          {"af_data inspect corpus.h5", "af_data inspect train.h5 --bigram heldout.h5 --sample 0"},
          inspect};
}

Command verify_command() {
  return {"verify", "reads token datasets to their end and checks them", "X.h5...", 1, SIZE_MAX, {}, {"af_data verify train.h5 heldout.h5"}, verify};
}

}  // namespace af
