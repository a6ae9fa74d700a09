// af_data replay: which documents made up an optimizer step.
#include <fmt/format.h>


#include "core/error.h"
#include "data/token_dataset.h"
#include "data/tokenizer.h"
#include "launch/config_yaml.h"
#include "launch/data_commands.h"
#include "launch/json_line.h"
#include "launch/run_ledger.h"

namespace af {
namespace {

// Decodes parts of the run's datasets.
class Texts {
 public:
  Texts(const std::string& tokenizer, const std::vector<SourceSpec>& sources) : tokenizer_(make_tokenizer(tokenizer)) {
    for (const SourceSpec& source : sources) {
      datasets_.emplace_back(source.path);
      if (datasets_.back().info().tokenizer_sha256 != tokenizer_->sha256())
        user_error("{}: made with another tokenizer than {}; give its own with --tokenizer", source.path, tokenizer);
    }
  }
  std::string operator()(int source, const SequenceContents::Part& part) const {
    const TokenDataset& dataset = datasets_[std::size_t(source)];
    std::vector<std::uint32_t> tokens(std::size_t(part.end - part.begin));
    dataset.read(dataset.offsets()[std::size_t(part.document)] + part.begin, part.end - part.begin, tokens.data());
    return tokenizer_->decode(tokens);
  }

 private:
  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<TokenDataset> datasets_;
};

int replay(const Arguments& arguments) {
  const std::string& run = arguments.positionals()[0];
  const std::int64_t step = arguments.integer("--step", 0);
  const StepContents contents = replay_step(run, step);
  const LedgerEntry& entry = contents.entry;
  std::unique_ptr<Texts> texts;
  if (arguments.has("--text")) {
    std::string tokenizer = arguments.value("--tokenizer");
    if (tokenizer.empty()) tokenizer = read_config(run + "/config.yaml", {}).tokenizer.path;
    texts = std::make_unique<Texts>(tokenizer.empty() ? "bytes" : tokenizer, entry.sources);
  }
  fmt::print("{}\n", JsonLine()
                         .add("step", step)
                         .add("stage", entry.stage)
                         .add("seq_length", entry.seq_length)
                         .add("packing", name_of(entry.packing))
                         .add("sequences", entry.global_batch_size)
                         .text());
  for (const SequenceContents& sequence : contents.sequences) {
    const SourceSpec& source = entry.sources[std::size_t(sequence.source)];
    std::vector<JsonLine> documents;
    for (const SequenceContents::Part& part : sequence.parts) {
      documents.push_back(JsonLine().add("epoch", part.epoch).add("document", part.document).add("begin", part.begin).add("end", part.end));
      if (texts) documents.back().add("text", (*texts)(sequence.source, part));
    }
    fmt::print("{}\n", JsonLine()
                           .add("sequence", sequence.global_index)
                           .add("source", source.name)
                           .add("path", source.path)
                           .add("masked_tokens", sequence.padding)
                           .add("documents", documents)
                           .text());
  }
  return kExitDone;
}

}  // namespace

Command replay_command() {
  return {"replay",
          "names the documents of an optimizer step, a JSON line per sequence",
          "RUN_DIR",
          1,
          1,
          {{"--step", Takes::one_value, "N", "the step: its \"iteration\" in metrics.jsonl", {}, true},
           {"--text", Takes::nothing, "", "with the text of every part", {}, false},
           {"--tokenizer", Takes::one_value, "NAME", "for --text (default: the run's tokenizer.path, else bytes)", {}, false}},
          {"af_data replay --step 1234 runs/agentic_cpt", "af_data replay --step 1234 --text runs/agentic_cpt | jq -r '.documents[]?.text'"},
          replay};
}

}  // namespace af
