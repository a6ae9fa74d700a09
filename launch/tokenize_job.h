// One run of 'af_data tokenize': blocks of text, tokenized by threads, are folded in their order into a dataset and its
// manifest. What the threads made goes into X.h5.part first; a run that was killed folds what it finds there and goes on.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/block_pipeline.h"
#include "data/duplicates.h"
#include "data/manifest.h"
#include "data/spool.h"
#include "data/token_dataset.h"

namespace af {

enum class RemoveDuplicates { none, exact, near };

struct TokenizeJobOptions {
  std::string tokenizer, output;
  std::vector<std::string> inputs;
  TokenizeOptions tokenize;
  std::string licence;  // of all inputs
  RemoveDuplicates remove = RemoveDuplicates::none;
  std::optional<double> near_threshold;  // near duplicates are looked for
  std::int64_t max_line_bytes = 16 << 20;
  int threads = 1;
  bool strict = false, terminal = false;
};

class TokenizeJob {
 public:
  explicit TokenizeJob(TokenizeJobOptions options);
  int run();  // the exit code

 private:
  Json options_json() const;
  Json identity() const;                            // what the result depends on
  BlockPipeline::Position take_over(Spool& spool);  // folds what an earlier run did
  void fold(const BlockRecord& record);
  template <class F>
  void write(F&& f);
  bool is_removed(const BlockRecord& record, std::size_t document);
  void report(const BlockRecord& record);
  void finish();
  double fraction() const;

  TokenizeJobOptions options_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<TextSource> sources_;
  std::optional<TokenDatasetWriter> writer_;
  ExactIndex exact_;
  std::optional<NearIndex> near_;
  Manifest manifest_;
  std::vector<TokenRange> counted_;  // of one document
  std::int64_t skipped_ = 0, removed_ = 0, text_bytes_ = 0, reported_ = 0, duplicates_reported_ = 0;
  std::int64_t file_bytes_ = 0, finished_bytes_ = 0, all_bytes_ = 0;  // of the file in work, of those before it, of all
  bool quiet_ = false;                                                // what was reported before is not reported again
};

}  // namespace af
