// af_data import: Megatron-LM's .bin/.idx datasets become a token dataset with a manifest.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "core/error.h"
#include "data/file.h"
#include "data/manifest.h"
#include "data/megatron_dataset.h"
#include "data/token_dataset.h"
#include "data/tokenizer.h"
#include "launch/data_commands.h"
#include "launch/data_inputs.h"
#include "launch/progress.h"

namespace af {
namespace {

std::vector<std::string> prefixes_of(const std::vector<std::string>& inputs) {
  std::vector<std::string> prefixes;
  for (const std::string& input : inputs) {
    for (std::string name : files_matching(input)) {
      if (name.ends_with(".bin") || name.ends_with(".idx")) name.resize(name.size() - 4);
      if (std::find(prefixes.begin(), prefixes.end(), name) == prefixes.end()) prefixes.push_back(name);  // a pattern finds both files
    }
  }
  return prefixes;
}

int import(const Arguments& arguments) {
  const std::string output = arguments.value("--output"), licence = arguments.value("--licence");
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(arguments.value("--tokenizer"));
  const std::vector<std::string> prefixes = prefixes_of(arguments.values("--input"));
  check_output(output);
  Manifest manifest;
  manifest.program = std::string("af_data import ") + kVersion;
  manifest.dataset = std::filesystem::path(output).filename();
  manifest.tokenizer = arguments.value("--tokenizer");
  manifest.tokenizer_sha256 = tokenizer->sha256();
  manifest.options = Json::Object();
  manifest.options.set("licence", licence.empty() ? Json() : Json(licence));
  std::int64_t all_bytes = 0, done_bytes = 0;
  std::string problems;
  for (const std::string& prefix : prefixes) {  // all are looked at before the first is read
    try {
      MegatronDataset dataset(prefix);
      for (const std::string& path : {dataset.bin_path(), dataset.idx_path()}) {
        manifest.sources.emplace_back();
        manifest.sources.back().name = path;
        manifest.sources.back().bytes = stamp_of(path).bytes;
        manifest.sources.back().licence = licence;
      }
      all_bytes += stamp_of(dataset.bin_path()).bytes;
    } catch (const UserError& error) {
      problems += (problems.empty() ? "" : "\n") + std::string(error.what());
    }
  }
  if (!problems.empty()) throw UserError(problems);

  TokenDatasetWriter writer(output, {tokenizer->sha256(), tokenizer->vocab_size(), tokenizer->eod_token(), source_names(manifest.sources)});
  Progress progress("import", ::isatty(STDERR_FILENO) != 0);
  std::vector<std::uint32_t> tokens;
  std::int64_t without_end = 0, empty = 0, other_modes = 0;
  for (std::size_t p = 0; p < prefixes.size(); ++p) {
    MegatronDataset dataset(prefixes[p]);
    ManifestSource &bin = manifest.sources[2 * p], &idx = manifest.sources[2 * p + 1];
    other_modes += dataset.other_modes();
    for (std::int64_t d = 0; d < dataset.num_documents(); ++d) {
      dataset.next(tokenizer->vocab_size(), tokens);
      ++bin.lines;
      if (tokens.empty()) {
        ++bin.lines_skipped, ++empty;
        continue;
      }
      without_end += tokens.back() != tokenizer->eod_token();
      const std::int64_t before = writer.num_tokens();
      writer.add_document(tokens);
      ++bin.documents, bin.tokens += writer.num_tokens() - before;
      progress.show(double(done_bytes + dataset.position()) / double(std::max<std::int64_t>(all_bytes, 1)), done_bytes + dataset.position());
    }
    done_bytes += dataset.position();
    bin.sha256 = dataset.bin_sha256(), idx.sha256 = dataset.idx_sha256();
  }
  if (writer.num_documents() == 0) user_error("there is no document in the input; nothing was written");
  manifest.documents = writer.num_documents(), manifest.tokens = writer.num_tokens();
  writer.close();
  write_manifest(manifest, manifest_path(output));
  progress.clear();
  fmt::print("{}: {} documents, {} tokens from {} dataset(s); the end of {} documents was added, {} empty documents were left out\n", output,
             manifest.documents, manifest.tokens, prefixes.size(), without_end, empty);
  if (other_modes > 0) fmt::print("{} sequences have a mode other than 0 (text): modes are not kept\n", other_modes);
  return kExitDone;
}

}  // namespace

Command import_command() {
  return {
      "import",
      "turns Megatron-LM's .bin/.idx datasets into a token dataset",
      "",
      0,
      0,
      {{"--tokenizer", Takes::one_value, "NAME", "by which the ids were made: for the vocabulary's size and the end of documents", {}, true},
       {"--input", Takes::values, "PREFIX", "PREFIX.bin and PREFIX.idx (MMIDIDX of version 1, or TNTIDX); patterns may be quoted", {}, true},
       {"--output", Takes::one_value, "X.h5", "the dataset, and beside it X.h5.manifest.json; replaced in one step when all is written", {}, true},
       {"--licence", Takes::one_value, "TEXT", "the licence of the input, for the manifest", {}, false}},
      {"af_data import --tokenizer qwen/ --input corpus_text_document --output corpus.h5",
       "af_data import --tokenizer qwen/ --input 'shards/*.idx' --licence CC-BY-4.0 --output shards.h5"},
      import};
}

}  // namespace af
