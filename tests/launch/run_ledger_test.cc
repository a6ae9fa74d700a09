// Replaying: what the ledger says of a step is what the stream gave in it, in both packings, across stages and resumes.
#include "launch/run_ledger.h"

#include <fstream>

#include "data/file.h"
#include "tests/data/corpus.h"

namespace af {
namespace {

struct TestStage {
  std::string name;
  std::int64_t seq_length, global_batch_size, train_iters;
  Packing packing;
  std::vector<double> weights;
};

class Ledger : public testing::Test {
 protected:
  Ledger() {
    for (std::size_t i = 0; i < 2; ++i) corpora_[i].write(path(i));
    std::filesystem::create_directory(run_);
  }
  std::string path(std::size_t i) { return folder_ / ("source" + std::to_string(i) + ".h5"); }

  // Trains on without a model, as launch/trainer.cc does: stages[first] from `done` of its steps on, and those behind it.
  void train(const std::vector<TestStage>& stages, std::size_t first, std::int64_t done, StreamState state, std::int64_t iteration,
             std::int64_t stop = INT64_MAX) {
    RunLedger ledger(run_);
    for (std::size_t i = first; i < stages.size(); ++i, done = 0) {
      const TestStage& stage = stages[i];
      std::vector<SourceSpec> sources;
      for (std::size_t s = 0; s < 2; ++s) sources.push_back({path(s), "", stage.weights[s]});
      if (done == 0) state.begin_mix();
      SequenceStream stream(sources, stage.seq_length, 7, state, Order::shuffled, stage.packing);
      ledger.begin({iteration, iteration - done + stage.train_iters, stage.name, 7, stage.seq_length, stage.global_batch_size, stage.packing, sources,
                    stream.state()});
      std::vector<PackedSequence> sequences;
      for (; done < stage.train_iters; ++done) {
        if (iteration == stop) return;
        before_[iteration] = {i, done, stream.state()};
        stream.next(stage.global_batch_size, 0, 1, sequences);
        given_[++iteration] = sequences;
        ledger.step(iteration, stream.state());
        state = stream.state();
      }
    }
  }

  // "": the step's sequences are, token for token, what the replay names.
  std::string compare(std::int64_t step) {
    StepContents contents = replay_step(run_, step);
    const std::vector<PackedSequence>& given = given_.at(step);
    if (contents.sequences.size() != given.size()) return "number of sequences";
    walked_ = std::max(walked_, (step - 1 - contents.entry.iteration) * contents.entry.global_batch_size);
    for (std::size_t i = 0; i < given.size(); ++i) {
      const SequenceContents& sequence = contents.sequences[i];
      std::vector<std::int32_t> tokens;
      std::vector<std::int64_t> begins{0};
      for (const SequenceContents::Part& part : sequence.parts) {
        const auto& document = corpora_[sequence.source].documents.at(std::size_t(part.document));
        tokens.insert(tokens.end(), document.begin() + part.begin, document.begin() + part.end);
        begins.push_back(std::int64_t(tokens.size()));
      }
      tokens.resize(tokens.size() + std::size_t(sequence.padding), 0);
      if (sequence.padding > 0) begins.push_back(std::int64_t(tokens.size()));
      if (sequence.global_index != given[i].global_index || sequence.source != given[i].source) return "index or source";
      if (tokens != given[i].tokens || begins != given[i].document_begins || sequence.padding != given[i].padding) return "tokens";
    }
    return "";
  }
  std::int64_t entries() {
    const std::string text = read_file(run_ + "/data_ledger.jsonl");
    return std::count(text.begin(), text.end(), '\n');
  }

  struct Before {
    std::size_t stage;
    std::int64_t done;
    StreamState state;
  };
  ScratchFolder folder_;
  std::string run_ = folder_ / "run";
  const Corpus corpora_[2] = {Corpus(1, 300, 60), Corpus(2, 120, 90)};
  const std::vector<TestStage> stages_{{"first", 16, 48, 400, Packing::sequential, {2, 1}}, {"second", 40, 32, 500, Packing::best_fit, {0.1, 0.7}}};
  std::map<std::int64_t, std::vector<PackedSequence>> given_;  // by step
  std::map<std::int64_t, Before> before_;                      // by the steps done
  std::int64_t walked_ = 0;
};

TEST_F(Ledger, EveryKindOfStepIsReplayed) {
  train(stages_, 0, 0, {}, 0);
  EXPECT_GE(entries(), 2 + (400 * 48 + 500 * 32) / 4096 - 2);
  std::mt19937 random(1);
  std::vector<std::int64_t> steps{1, 2, 399, 400, 401, 402, 899, 900};
  for (int i = 0; i < 40; ++i) steps.push_back(1 + std::int64_t(random() % 900));
  for (std::int64_t step : steps) EXPECT_EQ(compare(step), "") << step;
  EXPECT_GT(walked_, 2048);
  EXPECT_LE(walked_, 4096 + 48);  // however long the run
  std::swap(given_[7], given_[8]);
  EXPECT_NE(compare(7), "");  // the comparison notices another step
}

TEST_F(Ledger, AResumedRunReplacesWhatItDoesAgain) {
  train(stages_, 0, 0, {}, 0, 650);
  const auto first_run = given_;
  for (const auto& [at, mix] : {std::pair{300, 9.0}, std::pair{200, 5.0}, std::pair{620, 0.5}, std::pair{450, 3.0}}) {
    const Before before = before_.at(at);
    std::vector<TestStage> changed = stages_;
    changed[before.stage].weights[0] = mix;                                             // another mix from here on
    std::ofstream(run_ + "/data_ledger.jsonl", std::ios::app) << "{\"iteration\": 12";  // a killed process leaves half a line
    train(changed, before.stage, before.done, before.state, at, 650);
    for (std::int64_t step : {1, 150, 199, 200, 201, 299, 300, 301, 302, 400, 401, 449, 450, 451, 600, 619, 620, 621, 650})
      EXPECT_EQ(compare(step), "") << at << " " << step;
    EXPECT_TRUE(given_.at(at) == first_run.at(at) || at != 300);
    EXPECT_FALSE(given_.at(649) == first_run.at(649));
  }
  train(stages_, 0, 0, {}, 0, 10);  // begun anew in the same directory
  EXPECT_EQ(entries(), 1);
  EXPECT_EQ(compare(10), "");
  EXPECT_TRUE(given_.at(10) == first_run.at(10));
}

TEST_F(Ledger, WhatCannotBeReplayed) {
  EXPECT_NE(complaint_of([&] { replay_step(run_, 1); }).find("data_ledger.jsonl"), std::string::npos);
  train(stages_, 0, 0, {}, 0, 20);
  EXPECT_NE(complaint_of([&] { replay_step(run_, 0); }).find("count from 1"), std::string::npos);
  EXPECT_NE(complaint_of([&] { replay_step(run_, 401); }).find("first, ends at step 400"), std::string::npos);
  std::filesystem::remove(run_ + "/data_ledger.jsonl");
  train(stages_, 0, 15, before_.at(15).state, 15, 16);  // resumed into another directory: it has no more than its own part
  EXPECT_NE(complaint_of([&] { replay_step(run_, 15); }).find("step 15 is not in this directory's part"), std::string::npos);
  EXPECT_EQ(compare(16), "");
  std::ofstream(run_ + "/data_ledger.jsonl") << "not JSON\n";
  EXPECT_NE(complaint_of([&] { replay_step(run_, 1); }), "");
}

}  // namespace
}  // namespace af
