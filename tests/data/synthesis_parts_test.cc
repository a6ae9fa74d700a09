// The parts that FAS and HAS are made of: prompts, items in order, knowledge from a memory, counts of tokens and rejects.
#include <atomic>
#include <chrono>
#include <fstream>
#include <set>

#include "data/json.h"
#include "data/synthesis/answer_match.h"
#include "data/synthesis/fas.h"
#include "data/synthesis/in_order.h"
#include "data/synthesis/reply.h"
#include "tests/data/corpus.h"

namespace af {
namespace {

TEST(Prompts, ThoseOfTheExampleAreCompiledIn) {
  const Prompts compiled = Prompts::compiled_in(), folder = Prompts::with_folder(AF_SOURCE_DIR "/examples/synthesis/prompts");
  for (const auto& [name, text] : default_prompt_texts()) {
    std::ifstream file(AF_SOURCE_DIR "/examples/synthesis/prompts/" + name + ".txt");
    EXPECT_EQ(text, std::string(std::istreambuf_iterator<char>(file), {})) << name;
  }
  const Prompts::Values values{{"question", "{candidate} {x}"}, {"answer", "A"}, {"candidate", "C"}};
  EXPECT_EQ(compiled.fill("answer_judge", values), folder.fill("answer_judge", values));
  EXPECT_TRUE(compiled.fill("answer_judge", values).starts_with("The question:\n{candidate} {x}\n")) << "braces in values are text";
  EXPECT_FALSE(compiled.fill("style_factual", {}).ends_with("\n"));
  EXPECT_THROW(compiled.fill("answer_judge", {{"question", "q"}}), InternalError);
  EXPECT_THROW(compiled.fill("fas_reason_alone", {{"question", "q"}, {"answer", "a"}}), InternalError);
}

TEST(Prompts, WhatIsWrongInAFolder) {
  const auto complaint = [](const std::map<std::string, std::string>& files) {
    ScratchFolder folder;
    std::filesystem::create_directory(folder / "p");
    for (const auto& [name, text] : files) std::ofstream(folder / ("p/" + name)) << text;
    return complaint_of([&] { Prompts::with_folder(folder / "p"); });
  };
  EXPECT_EQ(complaint({{"fas_plan.txt", "{question} {\"name\": {x1} { } {}"}, {"notes.md", "{x}"}}), "");
  const std::string all = complaint({{"fas_plan.txt", "one\n{question} {tool}\n"},
                                     {"fas_reason_known.txt", "{question}"},
                                     {"style_factual.txt", "a\n\n{question}"},
                                     {"fas_plann.txt", "x"},
                                     {"style_numerical.txt", " \n"},
                                     {"answer_judge.txt", "a\n\xff"}});
  for (const char* part :
       {"fas_plan.txt:2: there is no placeholder {tool} for this prompt; did you mean {tools}?", "fas_reason_known.txt: {knowledge} is missing",
        "style_factual.txt:3: there is no placeholder {question} for this prompt; it takes none", "fas_plann.txt: there is no prompt 'fas_plann'",
        "style_numerical.txt: the prompt is empty", "answer_judge.txt:2: not UTF-8"}) {
    EXPECT_NE(all.find(part), std::string::npos) << part << "\n" << all;
  }
  EXPECT_NE(complaint({}).find("there are no prompts"), std::string::npos);
  EXPECT_NE(complaint_of([] { Prompts::with_folder("/nowhere/at/all"); }).find("cannot be read"), std::string::npos);
}

TEST(Reply, Tags) {
  EXPECT_EQ(last_in_tag("<a>1</a> <a> 2 </a>", "a"), "2");
  EXPECT_EQ(last_in_tag("<a>1</a> <a>2", "a"), "1");
  EXPECT_FALSE(last_in_tag("</a><a>", "a").has_value());
  EXPECT_EQ(verdict_in("Keep.", {"keep"}), "keep");
  EXPECT_EQ(verdict_in("<verdict>logic discontinuity</verdict>", {"logic_discontinuity"}), "logic_discontinuity");
  EXPECT_FALSE(verdict_in("keep it", {"keep"}).has_value());
  const ToolSet tools = ToolSet::built_in();
  const std::string call = "<tool_call>{\"name\":\"search\",\"arguments\":{\"query\":[\"a\"]}}</tool_call>";
  EXPECT_EQ(step_in("<think>a</think>" + call + call, tools).problem, "more than one call");
  EXPECT_EQ(step_in("<think>a</think>" + call + "<answer>b</answer>", tools).problem, "a call and an answer");
  EXPECT_EQ(step_in("<think> </think>" + call, tools).problem, "there is no <think>..</think>");
  EXPECT_EQ(step_in(call + "<think>a</think>", tools).problem, "neither a call nor an answer after the thought");
  EXPECT_EQ(step_in("<think>a</think>" + call, tools).text,
            "<think>\na\n</think>\n<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\": [\"a\"]}}\n</tool_call>");
}

TEST(Answers, Mentions) {
  EXPECT_TRUE(mentions("it is turin in italy", "turin in"));
  EXPECT_FALSE(mentions("it is turing", "turin"));
  EXPECT_FALSE(mentions("saturin", "turin"));
  EXPECT_TRUE(mentions("saturin turin", "turin")) << "the second time";
  EXPECT_FALSE(mentions("turin", ""));
}

TEST(InOrder, WhateverTheThreadsDo) {
  for (int threads : {1, 2, 7}) {
    std::atomic<int> now = 0, most = 0, waiting = 0;
    std::vector<int> taken;
    int next = 0;
    in_order<int, int>(
        threads, [&]() -> std::optional<int> { return next < 200 ? std::optional(next++) : std::nullopt; },
        [&](int& i) {
          const int running = ++now;
          for (int seen = most; seen < running && !most.compare_exchange_weak(seen, running);) {
          }
          std::this_thread::sleep_for(std::chrono::microseconds(i % 7 == 0 ? 2000 : 50));
          --now, ++waiting;
          EXPECT_LE(waiting, 4 * threads + threads);
          return i * i;
        },
        [&](int& square) { --waiting, taken.push_back(square); }, [] { ADD_FAILURE() << "nothing failed"; });
    ASSERT_EQ(taken.size(), 200u);
    for (int i = 0; i < 200; ++i) EXPECT_EQ(taken[std::size_t(i)], i * i);
    EXPECT_LE(most, threads);
    EXPECT_EQ(most > 1, threads > 1);
  }
}

TEST(InOrder, TheFirstFailureEndsIt) {
  for (const char* where : {"next", "work", "take"}) {
    std::atomic<bool> stopped = false;
    std::vector<int> taken;
    int next = 0;
    const auto fail = [&](const char* here, int i) {
      if (i == 20 && std::string(where) == here) throw UserError(here);
    };
    const std::string complaint = complaint_of([&] {
      in_order<int, int>(
          4,
          [&]() -> std::optional<int> {
            fail("next", next);
            return next++;
          },
          [&](int& i) {
            fail("work", i);
            if (i == 22 && std::string(where) == "work") {  // waits until it is stopped, and then throws too
              while (!stopped) std::this_thread::yield();
              throw std::runtime_error("later");
            }
            return i;
          },
          [&](int& i) {
            fail("take", i);
            taken.push_back(i);
          },
          [&] { stopped = true; });
    });
    EXPECT_EQ(complaint, where);
    EXPECT_TRUE(stopped);
    EXPECT_LE(taken.size(), 20u);
    for (std::size_t i = 0; i < taken.size(); ++i) EXPECT_EQ(taken[i], int(i));
  }
}

class KnowledgeFromMemory : public testing::Test {
 protected:
  KnowledgeFromMemory() : memory_(Memory::open(folder_ / "m.db", Memory::Mode::create)) {
    std::vector<Statement> statements;
    for (int i = 0; i < 30; ++i) {
      const std::string name = fmt::format("entity{}", i);
      const auto add = [&](const std::string& text, const std::string& relation, const std::string& value) {
        statements.push_back({name, text, i % 2 ? "2020" : "", "s", "test", relation, value, false});
      };
      if (i == 29) {
        add("alone", "", "");
        continue;
      }
      add(fmt::format("{} is the next of entity{}.", name, (i + 1) % 29), "next", fmt::format("entity{}", (i + 1) % 29));
      for (int k = 0; k < 20; ++k) add(fmt::format("{} has the number {} at {}.", name, 1000 * i + k, k), "", "");
    }
    memory_.add(statements);
  }
  ScratchFolder folder_;
  Memory memory_;
};

TEST_F(KnowledgeFromMemory, EveryEntityBeginsAClusterOnceARound) {
  KnowledgeOptions options;
  options.seed = 3, options.most_entities = 2, options.statements_per_entity = 5;
  KnowledgeSampler sampler(memory_, options);
  std::vector<std::string> first;
  int companions = 0;
  for (int i = 0; i < 58; ++i) {
    const Knowledge knowledge = sampler.next().value();
    EXPECT_EQ(knowledge.number, i);
    first.push_back(knowledge.entities.at(0));
    ASSERT_LE(knowledge.entities.size(), 2u);
    if (knowledge.entities.size() == 2) {
      ++companions;
      const int number = std::stoi(first.back().substr(6));
      EXPECT_EQ(knowledge.entities[1], fmt::format("entity{}", (number + 1) % 29)) << "the fact names it";
    }
    EXPECT_TRUE(knowledge.text.starts_with("## " + first.back() + "\n"));
    EXPECT_EQ(std::count(knowledge.text.begin(), knowledge.text.end(), '\n'), std::ptrdiff_t(6 * knowledge.entities.size()));
    bool dated = false;
    for (const std::string& name : knowledge.entities) dated = dated || std::stoi(name.substr(6)) % 2 == 1;
    EXPECT_EQ(knowledge.text.find("(as of 2020)") != std::string::npos, dated);
  }
  EXPECT_GT(companions, 5);
  EXPECT_LT(companions, 53);
  const std::set<std::string> round(first.begin(), first.begin() + 29), again(first.begin() + 29, first.end());
  EXPECT_EQ(round.size(), 29u);
  EXPECT_EQ(round, again);
  EXPECT_FALSE(std::equal(first.begin(), first.begin() + 29, first.begin() + 29)) << "in another order";
  EXPECT_FALSE(round.contains("entity29")) << "too few statements";
  KnowledgeSampler same(memory_, options);
  for (int i = 0; i < 58; ++i) EXPECT_EQ(same.next()->entities[0], first[std::size_t(i)]);
}

TEST_F(KnowledgeFromMemory, StylesOfOneKnowledgeDiffer) {
  KnowledgeSampler sampler(memory_, {});
  FasOptions options;
  options.styles_per_memory = 3;
  FasItems items(sampler, options);
  std::map<std::string, int> counts;
  for (int cluster = 0; cluster < 200; ++cluster) {
    std::set<std::string> styles;
    for (int i = 0; i < 3; ++i) {
      const FasItem item = items.next().value();
      EXPECT_EQ(item.number, 3 * cluster + i);
      EXPECT_EQ(item.knowledge.number, cluster);
      styles.insert(item.style), ++counts[item.style];
    }
    EXPECT_EQ(styles.size(), 3u);
  }
  for (const std::string& style : fas_styles()) EXPECT_NEAR(counts[style], 120, 35) << style;
}

TEST_F(KnowledgeFromMemory, NothingToAskAbout) {
  KnowledgeOptions options;
  options.least_statements = 100;
  EXPECT_FALSE(KnowledgeSampler(memory_, options).next().has_value());
  options.least_statements = 2, options.most_bytes = 0;
  EXPECT_FALSE(KnowledgeSampler(memory_, options).next().has_value());
  Memory empty = Memory::open(folder_ / "empty.db", Memory::Mode::create);
  EXPECT_FALSE(KnowledgeSampler(empty, {}).next().has_value());
}

TEST(TokenCounter, WithAndWithoutATokenizer) {
  EXPECT_EQ(TokenCounter()("12345"), 2);
  EXPECT_EQ(TokenCounter()(""), 0);
  const std::unique_ptr<Tokenizer> bytes = make_tokenizer("bytes");
  EXPECT_EQ(TokenCounter(bytes.get())("12345"), 5);
}

TEST(Rejects, LinesAndCounts) {
  const Json json = Json::parse(to_json_line(Reject{"a", "k", "s", "r", "\"d\"", "q", "t\n"}), "x");
  EXPECT_EQ(json.find("detail")->string() + json.find("text")->string(), "\"d\"t\n");
  Yield yield("things", {"bad", "worse"});
  yield.keep(), yield.reject("bad"), yield.reject("bad");
  EXPECT_EQ(yield.rejected("bad"), 2);
  EXPECT_EQ(yield.rejected("worse"), 0);
  EXPECT_THROW(yield.reject("unheard of"), InternalError);
  EXPECT_EQ(
      yield.text(),
      "things                              3 tried, 1 kept (33.3 %)\n  bad                               2\n  worse                             0\n");
}

}  // namespace
}  // namespace af
