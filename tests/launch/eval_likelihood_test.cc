// Questions, their tokens and their likelihoods, against the definition: every candidate's whole document tokenized and run by itself.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "core/random.h"
#include "data/bpe_trainer.h"
#include "data/file.h"
#include "data/synthesis/has_text.h"
#include "launch/eval_report.h"
#include "launch/eval_scorer.h"

namespace af {
namespace {

namespace fs = std::filesystem;

std::string step(int i) {
  return fmt::format("<think>try {}</think>\n<tool_call>\n{{\"name\": \"search\", \"arguments\": {{\"query\": [\"x{}\"]}}}}\n</tool_call>", i % 3, i);
}

// Trajectories with up to `most_options` options; the first decision has `most_options`.
std::vector<Sample> has_samples(int count, int most_options, HasWording wording) {
  std::vector<Sample> samples;
  for (int s = 0; s < count; ++s) {
    Trajectory trajectory{fmt::format("t{}", s), fmt::format("Who maintains caf\u00e9 {}?", s), {}, "x", {}, s % 3 != 0};
    std::vector<OptionSet> options;
    for (int k = 0; k < 1 + s % 3; ++k) {
      const int n = k == 0 ? most_options : 2 + k;
      std::vector<std::string> others;
      for (int i = 1; i < n; ++i) others.push_back(step(100 * s + 10 * k + i));
      trajectory.steps.push_back({step(100 * s + 10 * k), k < 2 ? std::optional(fmt::format("found {} results\n", s)) : std::nullopt});
      options.push_back(merge_options(trajectory.steps.back().content, others, 5, std::uint64_t(100 * s + k)));
    }
    samples.push_back(render_has(trajectory, options, wording));
  }
  return samples;
}

std::vector<Sample> answer_samples(int count) {
  std::vector<Sample> samples;
  const char* answers[] = {"New", "New York", "Old York", "12", "1"};
  for (int s = 0; s < count; ++s) {
    Sample sample{fmt::format("f{}", s), "fas_reasoning", "factual", {}, {}, answers[s % 5], {}, {}, "hand"};
    sample.segments = {{Role::user, fmt::format("Question {}?\n", s)},
                       {Role::thought, "<think>hm</think>\n"},
                       {Role::answer, fmt::format("<answer>{}</answer>\n", answers[s % 5])}};
    samples.push_back(sample);
  }
  return samples;
}

class Evaluated : public testing::Test {
 protected:
  Evaluated() {
    fs::create_directories(folder_);
    write_file(folder_ + "/run.yaml", R"(
output_dir: out
seed: 3
model: {model_type: qwen3_moe, vocab_size: 512, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 8,
        max_position_embeddings: 64, initializer_range: 0.2, tie_word_embeddings: false, num_experts: 4, num_experts_per_tok: 2, moe_intermediate_size: 16}
stages: [{name: a, seq_length: 4096, train_iters: 1, global_batch_size: 1, lr: {lr: 1e-3}, data: [{path: none.h5}]}]
)");
  }
  ~Evaluated() override { fs::remove_all(folder_); }

  // log p(tokens[t] | tokens before), each document by itself, without a cache.
  std::vector<double> token_log_likelihoods(EvalModel& model, std::vector<std::int32_t> tokens) {
    const std::int64_t n = std::int64_t(tokens.size());
    std::vector<std::int32_t> targets(tokens.begin() + 1, tokens.end()), positions;
    targets.push_back(-1);
    for (std::int64_t i = 0; i < n; ++i) positions.push_back(std::int32_t(i));
    const std::vector<AttentionSegment> documents = {{0, n, 0, n}};
    const MicroBatch batch{Tensor(tokens.data(), DType::i32, {n}), Tensor(targets.data(), DType::i32, {n}), Tensor(positions.data(), DType::i32, {n}),
                           1, documents};
    Arena memory(Device{}, "losses");
    const Tensor losses = memory.tensor({n}, DType::f32);
    const RecomputeSettings recompute;
    const BalanceSettings balance;
    model.model().evaluate({model.context(), batch, model.context().scratch, model.context().scratch, Mode::evaluate, recompute, balance}, losses);
    std::vector<double> out = {0};
    for (std::int64_t i = 0; i + 1 < n; ++i) out.push_back(-double(losses.as<float>()[i]));
    return out;
  }

  // Every candidate in its whole document. What is compared: differences between candidates. Returns how many questions had one token.
  int compare(const Tokenizer& tokenizer, const std::vector<Sample>& samples) {
    EvalModel model({EvalSource::Kind::random, folder_ + "/run.yaml"}, Device{}, DType::f32);
    const std::vector<LikelihoodQuestion> questions = questions_of(samples, 3, 1);
    const std::unique_ptr<Encoder> encoder = tokenizer.encoder();
    std::vector<TokenizedDocument> documents;
    std::vector<std::vector<LikelihoodQuestion>> of;
    for (std::size_t s = 0; s < samples.size(); ++s) {
      of.emplace_back();
      for (const LikelihoodQuestion& question : questions)
        if (question.sample == std::int64_t(s)) of.back().push_back(question);
      documents.push_back(tokenize_document(*encoder, samples[s], of.back()));
    }
    const LogLikelihoods found = Scorer(model).score(documents, [](std::size_t) {});
    int single = 0;
    for (std::size_t s = 0; s < samples.size(); ++s)
      for (std::size_t q = 0; q < of[s].size(); ++q) {
        const LikelihoodQuestion& question = of[s][q];
        const std::string text = text_of(samples[s]);
        const int there = question.kind == QuestionKind::option ? 0 : question.right;
        EXPECT_EQ(text.substr(question.begin, question.end - question.begin), question.candidates[std::size_t(there)]);
        std::vector<std::vector<std::int32_t>> whole;
        std::vector<std::size_t> ends;
        for (const std::string& candidate : question.candidates) {
          std::vector<std::uint32_t> ids;
          encoder->encode(text.substr(0, question.begin) + candidate + text.substr(question.end), SpecialTokens::split, ids);
          whole.emplace_back(ids.begin(), ids.end());
          std::size_t bytes = 0, end = 0;
          while (bytes < question.begin + candidate.size()) bytes += tokenizer.bytes_of(ids[end++]).size();
          ends.push_back(end);
        }
        std::size_t first = 0;  // where any differs
        while (std::all_of(whole.begin(), whole.end(), [&](const auto& ids) { return ids[first] == whole[0][first]; })) ++first;
        const bool one = documents[s].questions[q].one_token();
        single += one;
        for (std::size_t c = 0; c < whole.size(); ++c) {
          const std::vector<double> each = token_log_likelihoods(model, whole[c]);
          double expected = 0;
          const std::size_t end = one ? first + 1 : ends[c];
          for (std::size_t t = first; t < end; ++t) expected += each[t];
          EXPECT_NEAR(found[s][q][c], expected, 2e-5) << samples[s].id << " " << name_of(question.kind) << " candidate " << question.candidates[c];
          if (one) {
            EXPECT_EQ(end + whole[0].size(), first + 1 + whole[c].size());  // nothing but this token differs
          }
        }
      }
    return single;
  }

  std::string folder_ = fs::temp_directory_path() / fmt::format("af_eval_{}", ::getpid());
};

TEST_F(Evaluated, EqualsEachCandidateByItself) {
  const std::unique_ptr<Tokenizer> bytes = make_tokenizer("bytes");
  // Up to 9 options are one byte each; 12 are not, nor are the words of a judgement.
  EXPECT_EQ(compare(*bytes, has_samples(5, 4, HasWording::decision)), 9);
  EXPECT_EQ(compare(*bytes, has_samples(2, 12, HasWording::solutions)), 1);
  EXPECT_EQ(compare(*bytes, answer_samples(6)), 0);
}

TEST_F(Evaluated, EqualsEachCandidateByItselfInWords) {
  BpeTrainer trainer;
  for (const Sample& sample : has_samples(20, 4, HasWording::decision)) trainer.add(text_of(sample));
  BpeTokenizer words(trainer.train(400));
  EXPECT_GT(compare(words, has_samples(5, 4, HasWording::decision)), 0);
  compare(words, has_samples(2, 12, HasWording::solutions));
  compare(words, answer_samples(6));
}

TEST(Questions, WhatIsAsked) {
  const std::vector<Sample> samples = has_samples(3, 3, HasWording::solutions);
  const std::vector<LikelihoodQuestion> questions = questions_of(samples, 3, 1);
  ASSERT_EQ(questions.size(), 2 * (1U + 2 + 3) + 3);
  EXPECT_EQ(questions[0].candidates[1], "I choice Solution [2]\n");
  EXPECT_EQ(questions[0].right + 1, samples[0].decisions[0].chosen);
  EXPECT_EQ(questions[1].kind, QuestionKind::option);
  EXPECT_EQ(std::set<std::string>(questions[1].candidates.begin(), questions[1].candidates.end()), (std::set<std::string>{step(0), step(1), step(2)}));
  EXPECT_EQ(questions[1].candidates[std::size_t(questions[1].right)], step(0));
  EXPECT_EQ(questions[2].kind, QuestionKind::judgement);
  EXPECT_EQ(questions[2].candidates, (std::vector<std::string>{"My decision is [Correct]\n", "My decision is [Incorrect]\n"}));
  EXPECT_EQ(questions[2].right, 1);  // sample 0 failed
  std::vector<Sample> wrong = samples;
  wrong[0].decisions[0].chosen = wrong[0].decisions[0].chosen % 3 + 1;
  EXPECT_THROW(questions_of(wrong, 3, 1), UserError);
}

// The right answer stands at every place, among different ones of its kind; the draw does not depend on where in the file a sample stands.
TEST(Questions, Distractors) {
  std::vector<Sample> samples = answer_samples(60);
  const std::vector<LikelihoodQuestion> questions = questions_of(samples, 3, 1);
  ASSERT_EQ(questions.size(), 60U);
  int places[4] = {};
  for (const LikelihoodQuestion& question : questions) {
    ++places[question.right];
    EXPECT_EQ(question.candidates[std::size_t(question.right)], samples[std::size_t(question.sample)].answer + "</answer>\n");
    EXPECT_EQ(std::set<std::string>(question.candidates.begin(), question.candidates.end()).size(), 4U);
  }
  for (int n : places) EXPECT_GT(n, 5);
  std::reverse(samples.begin(), samples.end());
  const std::vector<LikelihoodQuestion> reversed = questions_of(samples, 3, 1);
  for (std::size_t i = 0; i < 60; ++i) EXPECT_EQ(reversed[59 - i].candidates, questions[i].candidates);
  EXPECT_TRUE(questions_of(answer_samples(3), 3, 1).empty());  // not enough other answers
}

// Three samples with 1, 2 and 3 choices of 2 options: by hand.
TEST(Tally, ByHand) {
  Tally tally;
  tally.add(0, true, 0.5);
  tally.add(1, true, 0.5), tally.add(1, false, 0.5);
  tally.add(2, true, 0.5), tally.add(2, true, 0.5), tally.add(2, false, 0.5);
  EXPECT_DOUBLE_EQ(tally.accuracy(), 4.0 / 6);
  EXPECT_DOUBLE_EQ(tally.chance(), 0.5);
  const double r = 4.0 / 6, squares = (1 - r) * (1 - r) + (1 - 2 * r) * (1 - 2 * r) + (2 - 3 * r) * (2 - 3 * r);
  EXPECT_NEAR(tally.standard_error(), std::sqrt(1.5 * squares) / 6, 1e-15);
  EXPECT_NEAR(tally.above_chance(), (4.0 / 6 - 0.5) / tally.standard_error(), 1e-12);
}

// Choices by chance: z has mean 0 and standard deviation 1, although choices of a sample are all right or all wrong together.
TEST(Tally, OfChanceAlone) {
  double sum = 0, squares = 0;
  constexpr int kTrials = 400;
  for (std::uint64_t trial = 0; trial < kTrials; ++trial) {
    Tally tally;
    for (std::uint64_t s = 0; s < 60; ++s) {
      const bool right = random_uniform(3, trial, s) < 0.25;
      for (std::uint64_t k = 0; k < 1 + s % 4; ++k) tally.add(std::int64_t(s), right, 0.25);
    }
    const double z = tally.above_chance();
    sum += z, squares += z * z;
  }
  EXPECT_NEAR(sum / kTrials, 0, 0.2);
  EXPECT_NEAR(squares / kTrials, 1, 0.25);
}

TEST(Tally, Weights) {
  Tally tally;
  for (int i = 0; i < 30; ++i) tally.add(i, true, 0.5, 0.5 / 30);
  for (int i = 30; i < 40; ++i) tally.add(i, false, 0.5, 0.5 / 10);
  EXPECT_NEAR(tally.accuracy(), 0.5, 1e-12);
  EXPECT_NEAR(tally.above_chance(), 0, 1e-9);
  Tally all_right;
  for (int i = 0; i < 16; ++i) all_right.add(i, true, 0.5);
  EXPECT_NEAR(all_right.above_chance(), 0.5 / (0.5 / 4), 1e-12);
}

// All wrong: thirds do not add up exactly, and what is left of them is no error of measurement.
TEST(Tally, AllWrongAtAThird) {
  Tally tally;
  for (int sample = 0; sample < 7; ++sample)
    for (int choice = 0; choice <= sample; ++choice) tally.add(sample, false, 1.0 / 3);
  EXPECT_NEAR(tally.above_chance(), -(1.0 / 3) / (std::sqrt(28 * 2.0 / 9) / 28), 1e-9);
}

}  // namespace
}  // namespace af
