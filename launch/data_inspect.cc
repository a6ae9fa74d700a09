// af_data inspect and verify: what a token dataset holds, and whether it is whole.
#include <algorithm>
#include <bit>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "core/error.h"
#include "data/bigram.h"
#include "data/manifest.h"
#include "data/token_dataset.h"
#include "data/tokenizer.h"
#include "data/utf8.h"
#include "launch/data_commands.h"
#include "launch/dataset_check.h"

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

// The text of tokens; ids without text as <id>.
std::string text_of(const Tokenizer& tokenizer, const std::vector<std::uint32_t>& tokens) {
  std::string text;
  for (std::uint32_t token : tokens) {
    const std::string_view bytes = tokenizer.bytes_of(token);
    text += bytes.empty() ? fmt::format("<{}>", token) : std::string(bytes);
  }
  return text;
}

// The tokenizer that the dataset was made with: the one named, else the one of the manifest, if it is still there, or the
// bytes. nullptr: none of these.
std::unique_ptr<Tokenizer> tokenizer_of(const TokenDataset& dataset, const Manifest* manifest, const std::string& named) {
  const std::string& wanted = dataset.info().tokenizer_sha256;
  if (!named.empty()) {
    std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(named);
    if (tokenizer->sha256() != wanted)
      user_error("{}: was made with another tokenizer than {} ({}, not {})", dataset.path(), named, wanted, tokenizer->sha256());
    return tokenizer;
  }
  for (const std::string& name : {std::string("bytes"), manifest ? manifest->tokenizer : ""}) {
    try {
      std::unique_ptr<Tokenizer> tokenizer = name.empty() ? nullptr : make_tokenizer(name);
      if (tokenizer && tokenizer->sha256() == wanted) return tokenizer;
    } catch (const UserError&) {  // no longer where it was
    }
  }
  return nullptr;
}

void print_sample(const TokenDataset& dataset, const Tokenizer* tokenizer, std::int64_t document, std::int64_t most) {
  const std::int64_t begin = dataset.offsets()[std::size_t(document)], length = dataset.offsets()[std::size_t(document) + 1] - begin;
  const std::int64_t n = std::min(most, length);
  if (n <= 0) return;
  std::vector<std::uint32_t> tokens(static_cast<std::size_t>(n));
  dataset.read(begin, n, tokens.data());
  fmt::print("\nthe first {} of {} tokens of document {}\n", n, length, document);
  if (tokenizer) {
    fmt::print("{}\n", printable(text_of(*tokenizer, tokens)));
  } else {
    for (std::uint32_t token : tokens) fmt::print("{} ", token);
    fmt::print("(ids; --tokenizer shows the text)\n");
  }
}

void print_sources(const Manifest& manifest) {
  constexpr std::size_t kMost = 50;
  fmt::print("\nsources ({}, tokenizer {})\n  {:>14} {:>12} {:>14} {:>9} {:>10}  {}\n", manifest.program, manifest.tokenizer, "bytes", "documents",
             "tokens", "skipped", "removed", "name, licence, sha256");
  for (std::size_t i = 0; i < std::min(kMost, manifest.sources.size()); ++i) {
    const ManifestSource& source = manifest.sources[i];
    std::string licence = source.licences.empty() ? source.licence : "";
    for (const auto& [name, documents] : source.licences) licence += fmt::format("{}{}: {}", licence.empty() ? "" : ", ", name, documents);
    fmt::print("  {:>14} {:>12} {:>14} {:>9} {:>10}  {}, {}, {:.12}\n", source.bytes, source.documents, source.tokens, source.lines_skipped,
               source.duplicates_removed, source.name, licence.empty() ? "licence not known" : licence, source.sha256);
  }
  if (manifest.sources.size() > kMost) fmt::print("  ... and {} more, all in the manifest\n", manifest.sources.size() - kMost);
  if (manifest.duplicates) {
    fmt::print("  {} exact duplicates", manifest.duplicates->exact);
    if (manifest.duplicates->near_threshold)
      fmt::print(", {} near ones (similarity {})", manifest.duplicates->near, *manifest.duplicates->near_threshold);
    fmt::print(" were found\n");
  }
}

// nullopt where there is none, or one that is not this dataset's.
std::optional<Manifest> manifest_of(const TokenDataset& dataset) {
  const std::string path = manifest_path(dataset.path());
  if (!std::filesystem::exists(path)) return std::nullopt;
  const Json json = Json::parse_file(path);
  Manifest manifest = manifest_from(JsonView(json, path));
  if (manifest.documents == dataset.num_documents() && manifest.tokens == dataset.num_tokens() &&
      manifest.tokenizer_sha256 == dataset.info().tokenizer_sha256) {
    return manifest;
  }
  fmt::print(stderr, "{}: is of another dataset ({} documents, {} tokens)\n", path, manifest.documents, manifest.tokens);
  return std::nullopt;
}

int inspect(const Arguments& arguments) {
  const std::int64_t sample = arguments.integer("--sample", 400), document = arguments.integer("--document", 0);
  TokenDataset dataset(arguments.positionals()[0]);
  const TokenDatasetInfo& info = dataset.info();
  fmt::print(
      "{}\n  documents          {}\n  tokens             {}\n  source             {}\n  tokenizer_sha256   {}\n  vocab_size         {}\n  "
      "eod_token_id       {}\n",
      dataset.path(), dataset.num_documents(), dataset.num_tokens(), info.source, info.tokenizer_sha256, info.vocab_size, info.eod_token_id);
  if (dataset.num_documents() == 0) return kExitDone;
  if (document >= dataset.num_documents()) user_error("--document {}: there are documents 0 to {}", document, dataset.num_documents() - 1);
  const std::optional<Manifest> manifest = manifest_of(dataset);
  const std::unique_ptr<Tokenizer> tokenizer = tokenizer_of(dataset, manifest ? &*manifest : nullptr, arguments.value("--tokenizer"));
  print_lengths(dataset);
  print_roles(dataset);
  if (manifest) print_sources(*manifest);
  print_sample(dataset, tokenizer.get(), document, sample);
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
    const std::vector<std::string> found = problems_in_child(path, seconds_to_read(path));
    for (const std::string& problem : found) problems += problem + "\n";
    if (found.empty()) fmt::print("{}: whole\n", path);
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
          {{"--sample", Takes::one_value, "N", "tokens of a document to show (default 400)", {}, false},
           {"--document", Takes::one_value, "N", "which document to show (default 0, the first)", {}, false},
           {"--tokenizer", Takes::one_value, "NAME", "to show its text (default: the one that the manifest names)", {}, false},
           {"--bigram",
            Takes::one_value,
            "HELDOUT.h5",
            "loss on it, in nats per token, of a bigram model of X.h5: what a trained model has to beat",
            {},
            false}},
          {"af_data inspect corpus.h5", "af_data inspect corpus.h5 --document 17 --sample 2000",
           "af_data inspect train.h5 --bigram heldout.h5 --sample 0"},
          inspect};
}

Command verify_command() {
  return {"verify", "reads token datasets to their end and checks them", "X.h5...", 1, SIZE_MAX, {}, {"af_data verify train.h5 heldout.h5"}, verify};
}

}  // namespace af
