// A model that acts: what an episode shows it is what the training data looks like; what is drawn depends on nothing beside it.
#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/random.h"
#include "data/file.h"
#include "data/synthesis/has_text.h"
#include "launch/eval_generator.h"
#include "launch/eval_pass.h"

namespace af {
namespace {

namespace fs = std::filesystem;

const std::string kSearch = "<think>look</think>\n<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\": [\"a\", \"b\"]}}\n</tool_call>";
const std::string kAnswer = "<think>so <answer>no</answer> it is</think>\n<answer>Paris, 1889</answer>";

class Acting : public testing::Test {
 protected:
  std::unique_ptr<Tokenizer> tokenizer_ = make_tokenizer("bytes");
  ToolSet tools_ = ToolSet::built_in();
  std::vector<ToolCall> calls_;
  ToolCaller call_ = [this](const ToolCall& call) {
    calls_.push_back(call);
    return fmt::format("result {}", calls_.size());
  };
  AgentSettings settings_;

  Episode begin(AgentFormat format) {
    settings_.format = format;
    return Episode(settings_, *tokenizer_, tools_, call_, "Which tower?");
  }
  std::vector<std::int32_t> tokens_of(const std::string& text) {
    std::vector<std::uint32_t> ids;
    tokenizer_->encoder()->encode(text, SpecialTokens::split, ids);
    return {ids.begin(), ids.end()};
  }
  // Until the episode goes on to another turn or ends. Returns whether all was written.
  bool write(Episode& episode, const std::string& text) {
    for (const std::int32_t token : tokens_of(text)) {
      if (episode.end() != Episode::End::none) return false;
      episode.write(token);
    }
    return true;
  }
  std::string text_of_tokens(const Episode& episode) {
    return tokenizer_->decode(std::vector<std::uint32_t>(episode.tokens().begin(), episode.tokens().end()));
  }
};

// The tokens are those of the messages in the training format.
TEST_F(Acting, ChatIsWhatTrainingSees) {
  settings_.system_prompt = "Seek.";
  Episode episode = begin(AgentFormat::chat);
  for (int turn = 0; turn < 2; ++turn) ASSERT_TRUE(write(episode, kSearch));
  EXPECT_EQ(episode.end(), Episode::End::none);
  ASSERT_TRUE(write(episode, kAnswer));
  EXPECT_EQ(episode.end(), Episode::End::answer);
  EXPECT_EQ(episode.answer(), "Paris, 1889");
  EXPECT_EQ(calls_.size(), 2U);
  ASSERT_EQ(episode.messages().size(), 7U);
  EXPECT_EQ(episode.messages()[3].content, "<tool_response>\nresult 1\n</tool_response>");
  EXPECT_EQ(episode.messages()[5].content, "<tool_response>\nresult 2\n</tool_response>");
  Document document;
  render_chat(*tokenizer_->encoder(), episode.messages(), SpecialTokens::split, document);
  document.tokens.resize(document.tokens.size() - 2);  // <|im_end|> and a line's end
  EXPECT_EQ(std::vector<std::uint32_t>(episode.tokens().begin(), episode.tokens().end()), document.tokens);
}

TEST_F(Acting, TheEndOfATurnIsTheModels) {
  Episode episode = begin(AgentFormat::chat);
  ASSERT_TRUE(write(episode, "<think>I do not know</think>"));
  episode.write(std::int32_t(tokenizer_->special_token("<|im_end|>")));
  EXPECT_EQ(episode.end(), Episode::End::silent);
  EXPECT_EQ(episode.messages().back().content, "<think>I do not know</think>");
  EXPECT_TRUE(calls_.empty());
}

TEST_F(Acting, TextIsWhatTrainingSees) {
  Episode episode = begin(AgentFormat::text);
  ASSERT_TRUE(write(episode, kSearch));
  ASSERT_TRUE(write(episode, kAnswer));
  EXPECT_EQ(text_of_tokens(episode), "Which tower?\n" + kSearch + "\n<tool_response>\nresult 1\n</tool_response>\n" + kAnswer);
}

// The text of a HAS sample whose responses are those of the tools, in both wordings: the option that is chosen is the one that is run.
TEST_F(Acting, OptionsAreWhatTrainingSees) {
  for (const HasWording wording : {HasWording::decision, HasWording::solutions}) {
    calls_.clear();
    const std::string visit = "<think>see</think>\n<tool_call>\n{\"name\": \"visit\", \"arguments\": {\"url\": [\"u\"], \"goal\": \"g\"}}\n</tool_call>";
    const Trajectory trajectory{"t",
                                "Which tower?",
                                {{visit, "<tool_response>\nresult 1\n</tool_response>\n"}, {kAnswer, std::nullopt}},
                                "Paris",
                                {},
                                std::nullopt};
    const OptionSet options[] = {{{kSearch, visit, kAnswer}, 1}, {{visit, kSearch, kAnswer}, 2}};
    const std::string expected = text_of(render_has(trajectory, options, wording));
    const std::string question = "Which tower?\n", response = "<tool_response>\nresult 1\n</tool_response>\n";
    const std::size_t at = expected.find(response);
    Episode episode = begin(AgentFormat::text);
    ASSERT_TRUE(write(episode, expected.substr(question.size(), at - question.size())));
    ASSERT_EQ(calls_.size(), 1U);
    EXPECT_EQ(calls_[0].name, "visit");
    ASSERT_TRUE(write(episode, expected.substr(at + response.size())));
    EXPECT_EQ(text_of_tokens(episode), expected);
    EXPECT_EQ(episode.end(), Episode::End::answer);
    EXPECT_EQ(episode.answer(), "Paris, 1889");
    EXPECT_EQ(episode.messages()[1].content, visit);
  }
  Episode episode = begin(AgentFormat::has);
  EXPECT_EQ(text_of_tokens(episode), "Which tower?\nOption 1:\n");
  ASSERT_TRUE(write(episode, kSearch + "\nI will choose option 1\n"));
  EXPECT_TRUE(text_of_tokens(episode).ends_with("</tool_response>\nOption 1:\n"));
}

TEST_F(Acting, Ends) {
  settings_.max_turns = 1;
  Episode many = begin(AgentFormat::text);
  write(many, kSearch);
  EXPECT_FALSE(write(many, kSearch + kSearch));
  EXPECT_EQ(many.end(), Episode::End::turns);
  EXPECT_EQ(many.calls(), 1);
  settings_.stop = {"STOP"};
  Episode stopped = begin(AgentFormat::text);
  EXPECT_FALSE(write(stopped, "I STOP here"));
  EXPECT_EQ(stopped.end(), Episode::End::silent);
  EXPECT_EQ(stopped.messages().back().content, "I STOP");
  Episode absent = begin(AgentFormat::text);  // an option that was not listed
  EXPECT_FALSE(write(absent, "Option 1:\n" + kSearch + "\nI will choose option 2\nmore"));
  EXPECT_EQ(absent.end(), Episode::End::silent);
}

TEST_F(Acting, CallsThatCannotBeRun) {
  for (const char* call : {"{\"name\": \"fly\", \"arguments\": {}}", "{\"name\": \"search\", \"arguments\": {\"query\": 3}}", "{\"name\": \"search\"", ""}) {
    Episode episode = begin(AgentFormat::text);
    ASSERT_TRUE(write(episode, fmt::format("<tool_call>\n{}\n</tool_call>", call)));
    EXPECT_EQ(episode.end(), Episode::End::none);
    EXPECT_NE(episode.messages().back().content.find("Error: the tool call cannot be run"), std::string::npos) << episode.messages().back().content;
  }
  EXPECT_TRUE(calls_.empty());
}

TEST(ChosenOption, ByItsNumber) {
  const std::string turn = "Option 1:\na\nb\nOption 12:\nc\nOption 2:\nd\n";
  EXPECT_EQ(chosen_option(turn + "I will choose option 1\n"), "a\nb");
  EXPECT_EQ(chosen_option(turn + "I will choose option 12\n"), "c");
  EXPECT_EQ(chosen_option(turn + "I will choose option 2\n"), "d");
  EXPECT_EQ(chosen_option(turn + "I will choose option 3\n"), "");
  EXPECT_EQ(chosen_option(turn + "I will choose option 1"), "");  // its line may go on: 12
  EXPECT_EQ(chosen_option(turn + "I choice Solution [1]\n"), "");
  EXPECT_EQ(chosen_option("I have 2 solutions\nSolution [1]:\nx\nSolution [2]:\ny\nI choice Solution [2]\n"), "y");
}

class Generating : public testing::Test {
 protected:
  Generating() {
    fs::create_directories(folder_);
    write_file(folder_ + "/run.yaml", R"(
output_dir: out
seed: 4
model: {model_type: qwen3_moe, vocab_size: 320, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 8,
        max_position_embeddings: 64, initializer_range: 0.2, tie_word_embeddings: false, num_experts: 4, num_experts_per_tok: 2, moe_intermediate_size: 16}
stages: [{name: a, seq_length: 512, train_iters: 1, global_batch_size: 1, lr: {lr: 1e-3}, data: [{path: none.h5}]}]
)");
  }
  ~Generating() override { fs::remove_all(folder_); }

  std::vector<std::vector<std::int32_t>> generate(EvalModel& model, std::int64_t batch, bool reversed, const SamplingSettings& sampling) {
    const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer("bytes");
    const ToolSet tools = ToolSet::built_in();
    const ToolCaller call = [](const ToolCall&) { return std::string("nothing"); };
    AgentSettings agent;
    agent.format = AgentFormat::text;
    GeneratorSettings settings;
    settings.sampling = sampling;
    settings.max_tokens = 30;
    settings.context = 70;
    settings.batch = batch;
    std::vector<std::vector<std::int32_t>> out(7);
    std::vector<Generator::Task> tasks;
    for (std::size_t i = 0; i < out.size(); ++i)
      tasks.push_back({[&, i] { return Episode(agent, *tokenizer, tools, call, std::string(5 + 9 * i, char('a' + i))); }, i,
                       [&, i](const Episode& episode) { out[i] = episode.tokens(); }});
    if (reversed) std::reverse(tasks.begin(), tasks.end());
    Generator generator(model, tokenizer->vocab_size(), settings);
    generator.run(std::move(tasks));
    return out;
  }
  std::string folder_ = fs::temp_directory_path() / fmt::format("af_generate_{}", ::getpid());
};

TEST_F(Generating, DependsOnNothingBeside) {
  EvalModel model({EvalSource::Kind::random, folder_ + "/run.yaml"}, Device{}, DType::f32);
  const SamplingSettings sampling{0.8, 0.95, 1.1};
  const std::vector<std::vector<std::int32_t>> alone = generate(model, 1, false, sampling);
  EXPECT_EQ(generate(model, 3, false, sampling), alone);
  EXPECT_EQ(generate(model, 7, true, sampling), alone);
  EXPECT_NE(generate(model, 1, false, {0.8, 0.95, 1.3}), alone);
  // Each token against the whole sequence run anew, without a cache.
  const auto naive = [&](std::size_t i) {
    std::vector<std::int32_t> tokens(alone[i].begin(), alone[i].begin() + 6 + 9 * std::ptrdiff_t(i));
    for (std::uint64_t n = 0; tokens.size() < alone[i].size(); ++n) {
      const std::int64_t count = std::int64_t(tokens.size());
      std::vector<std::int32_t> targets(tokens.size(), -1), positions(tokens.size());
      for (std::size_t t = 0; t < positions.size(); ++t) positions[t] = std::int32_t(t);
      const std::vector<AttentionSegment> documents = {{0, count, 0, count}};
      const MicroBatch batch{Tensor(tokens.data(), DType::i32, {count}), Tensor(targets.data(), DType::i32, {count}),
                             Tensor(positions.data(), DType::i32, {count}), 1, documents};
      Arena memory(Device{}, "logits");
      const Tensor loss = memory.tensor({count}, DType::f32), logits = memory.tensor({count, 320}, DType::f32);
      const RecomputeSettings recompute;
      const BalanceSettings balance;
      model.model().evaluate({model.context(), batch, model.context().scratch, model.context().scratch, Mode::evaluate, recompute, balance}, loss, logits);
      const std::span<const float> row(logits.as<float>() + (count - 1) * 320, 288);
      tokens.push_back(draw(distribution(row, tokens, sampling), random_uniform(1, i, n)));
    }
    return tokens;
  };
  for (std::size_t i : {0U, 4U}) EXPECT_EQ(naive(i), alone[i]);
  for (std::size_t i = 0; i < alone.size(); ++i) EXPECT_LE(alone[i].size(), 71U);
}

// Against all subsets of k attempts.
TEST(PassAt, EqualsTheShareOfSubsets) {
  for (std::int64_t n = 1; n <= 9; ++n)
    for (std::int64_t c = 0; c <= n; ++c)
      for (std::int64_t k = 1; k <= n; ++k) {
        double good = 0, all = 0;
        for (unsigned subset = 0; subset < 1U << n; ++subset) {
          if (__builtin_popcount(subset) != k) continue;
          all += 1;
          good += (subset & ((1U << c) - 1)) != 0;
        }
        EXPECT_NEAR(pass_at(k, n, c), good / all, 1e-12) << n << " " << c << " " << k;
      }
  EXPECT_NEAR(pass_at(100, 1000, 1), 0.1, 1e-12);
}

TEST(PassAt, MeanOfQuestions) {
  const MeanOfQuestions m = mean_of({1, 0, 0.5, 0.5});
  EXPECT_DOUBLE_EQ(m.mean, 0.5);
  EXPECT_DOUBLE_EQ(m.standard_error, std::sqrt(0.5 / 3 / 4));
  EXPECT_EQ(mean_of({1}).standard_error, 0);
}

}  // namespace
}  // namespace af
