// First-order action synthesis with a scripted teacher: what is kept, each reason to reject, what the prompts show and hide.
#include "data/synthesis/fas.h"

#include <set>

#include "tests/data/corpus.h"
#include "tests/data/scripted_teacher.h"

namespace af {
namespace {

const std::string kQuestion =
    "<think>I'd write <question>x</question></think>\n<question>Which town is the seat of the firm?</question>\n<answer>Turin</answer>";
const std::string kPlan =
    "<think>native</think>\n<think>It is a firm. I must find it first.</think>\n<tool_call>\n{\"name\": \"search\", \"arguments\": "
    "{\"query\": [\"firm seat\"]}}\n</tool_call> done";
const std::string kPlanStep =
    "<think>\nIt is a firm. I must find it first.\n</think>\n<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\": [\"firm "
    "seat\"]}}\n</tool_call>";
const std::string kReason = "<think>The firm was founded in Turin and never moved.</think><answer>turin.</answer>";

class Fas : public testing::Test {
 protected:
  Fas() : prompts_(Prompts::compiled_in()), tools_(ToolSet::built_in()) {
    options_.min_length = 3, options_.teacher = "scripted";
    teacher_.say("fas.question", kQuestion);
    teacher_.say("fas.plan", kPlan);
    teacher_.say("fas.plan_judge", "<verdict>keep</verdict>");
    teacher_.say("fas.reason_alone", "<think>hm</think><answer>Milan</answer>");
    teacher_.say("fas.reason_known", kReason);
    teacher_.say("fas.answer_judge", "<verdict>same</verdict>");
  }
  FasResult run(std::int64_t number = 7) {
    const FasItem item{number, {0, {"Fiat", "Agnelli"}, "## Fiat\nFiat was founded in Turin.\n## Agnelli\nAgnelli founded Fiat.\n"}, "multi_hop"};
    return FasSynthesis(teacher_, prompts_, tools_, length_, options_).run(item);
  }
  // "kind: reason" of the rejects.
  std::vector<std::string> reasons() {
    std::vector<std::string> reasons;
    FasResult result = run();
    for (const Reject& reject : result.rejects) reasons.push_back(reject.kind + ": " + reject.reason);
    FasYields().add(result);  // knows every reason
    return reasons;
  }
  ScriptedTeacher teacher_;
  Prompts prompts_;
  ToolSet tools_;
  TokenCounter length_;
  FasOptions options_;
};

TEST_F(Fas, BothKindsOfAQuestion) {
  const FasResult result = run();
  ASSERT_EQ(result.samples.size(), 2u);
  EXPECT_TRUE(result.rejects.empty());
  const Sample &planning = result.samples[0], &reasoning = result.samples[1];
  EXPECT_EQ(planning.id + " " + planning.kind + " " + planning.style, "fas-000007-planning fas_planning multi_hop");
  EXPECT_EQ(text_of(planning), "Which town is the seat of the firm?\n" + kPlanStep + "\n");
  ASSERT_EQ(planning.segments.size(), 5u);
  EXPECT_EQ(planning.segments[0].role, Role::user);
  EXPECT_EQ(planning.segments[1].role, Role::thought);
  EXPECT_EQ(planning.segments[3].role, Role::action);
  EXPECT_EQ(planning.entities, (std::vector<std::string>{"Fiat", "Agnelli"}));
  EXPECT_EQ(planning.answer + planning.teacher, "Turinscripted");
  EXPECT_EQ(text_of(reasoning),
            "Which town is the seat of the firm?\n<think>\nThe firm was founded in Turin and never moved.\n</think>\n<answer>\nturin.\n</answer>\n");
  EXPECT_EQ(reasoning.segments[3].role, Role::answer);
  EXPECT_EQ(reasoning.id + reasoning.kind, "fas-000007-reasoningfas_reasoning");
}

TEST_F(Fas, WhoSeesWhat) {
  run();
  const auto prompt = [&](const std::string& purpose) { return teacher_.asked(purpose).at(0).messages.at(0).content; };
  const auto sees = [&](const std::string& purpose, const std::string& what) { return prompt(purpose).find(what) != std::string::npos; };
  const std::string knowledge = "Agnelli founded Fiat.";
  for (const char* purpose : {"fas.question", "fas.plan_judge", "fas.reason_known"}) EXPECT_TRUE(sees(purpose, knowledge)) << purpose;
  for (const char* purpose : {"fas.plan", "fas.reason_alone"}) {
    EXPECT_FALSE(sees(purpose, knowledge) || sees(purpose, "Turin")) << purpose;
    EXPECT_TRUE(sees(purpose, "Which town is the seat of the firm?")) << purpose;
  }
  EXPECT_TRUE(sees("fas.question", "do not name Fiat, Agnelli;") && sees("fas.question", "Multi-hop: two or more facts"));
  EXPECT_TRUE(sees("fas.plan", "\"name\":\"google_scholar\""));
  EXPECT_TRUE(sees("fas.plan_judge", kPlanStep) && sees("fas.plan_judge", "The answer: Turin"));
  EXPECT_TRUE(sees("fas.reason_known", "<answer>Milan</answer>"));
  EXPECT_EQ(teacher_.asked("fas.plan_judge")[0].temperature, 0);
  EXPECT_EQ(teacher_.asked("fas.plan")[0].temperature, 1);
  EXPECT_TRUE(teacher_.asked("fas.answer_judge").empty());
}

TEST_F(Fas, SeedsAreOfTheItemAndTheStage) {
  run(1), run(2), run(1);
  std::set<std::uint64_t> seeds;
  for (const ChatRequest& request : teacher_.requests) seeds.insert(request.seed);
  EXPECT_EQ(seeds.size(), 2u * 5u);
  options_.seed = 9;
  run(1);
  for (const ChatRequest& request : teacher_.requests) seeds.insert(request.seed);
  EXPECT_EQ(seeds.size(), 3u * 5u);
}

TEST_F(Fas, QuestionsThatAreRejected) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"no tags", "not readable"},
      {"<question>Q?</question>", "not readable"},
      {"<question> </question><answer>x</answer>", "not readable"},
      {"<question>Q?</question><answer>...</answer>", "not readable"},
      {"<question>Is the seat of the firm in turin, or not?</question><answer>The Turin</answer>", "answer in question"},
      {"<question>Where did Agnelli found FIAT?</question><answer>Turin</answer>", "clues not obfuscated"},
      {"!refused", "teacher refused"},
      {"!away", "teacher failed"},
      {"!cut", "reply cut off"},
  };
  for (const auto& [reply, reason] : cases) {
    teacher_.say("fas.question", reply);
    EXPECT_EQ(reasons(), std::vector<std::string>{"fas_question: " + reason}) << reply;
  }
  EXPECT_TRUE(teacher_.asked("fas.plan").empty());
  for (const char* kept :
       {"<question>Is it in Turin, or yes?</question><answer>Yes</answer>", "<question>Where did Agnelli live?</question><answer>Turin</answer>"}) {
    teacher_.say("fas.question", kept);
    EXPECT_NE(run().question, "") << kept;
  }
}

TEST_F(Fas, PlanningStepsThatAreRejected) {
  options_.reasoning = false, options_.max_length = 20;
  const std::vector<std::pair<std::string, std::string>> steps{
      {"text", "not readable"},
      {"<think>a</think>", "not readable"},
      {"<think>a</think><tool_call>{\"name\": \"search\"", "not readable"},
      {"<think>about firms</think><tool_call>{\"name\": \"browse\", \"arguments\": {}}</tool_call>", "invalid tool"},
      {"<think>about firms</think><tool_call>{\"name\": \"search\", \"arguments\": {\"query\": \"a\"}}</tool_call>", "invalid tool"},
      {"<think>about firms</think><tool_call>{broken</tool_call>", "invalid tool"},
      {"<think>abcdefgh</think><answer>x</answer>", "too short"},
      {"<think>" + std::string(81, 'x') + "</think><answer>x</answer>", "too long"},
      {"!refused", "teacher refused"},
      {"!away", "teacher failed"},
      {"!cut", "reply cut off"},
  };
  for (const auto& [reply, reason] : steps) {
    teacher_.say("fas.plan", reply);
    EXPECT_EQ(reasons(), std::vector<std::string>{"fas_planning: " + reason}) << reply;
  }
  EXPECT_TRUE(teacher_.asked("fas.plan_judge").empty());
  for (const std::string& kept :
       {"<think>" + std::string(80, 'x') + "</think><answer>x</answer>", std::string("<think>abcdefghi</think><answer>x</answer>")}) {
    teacher_.say("fas.plan", kept);
    EXPECT_EQ(reasons(), std::vector<std::string>{}) << kept;
  }
}

TEST_F(Fas, TheJudgesVerdictCounts) {
  options_.reasoning = false;
  FasYields yields;
  const std::vector<std::pair<std::string, std::string>> verdicts{
      {"<verdict>content_inconsistency</verdict>", "content inconsistency"},
      {"I think <verdict>keep</verdict>? No: <verdict> Search_Necessity </verdict>", "search necessity"},
      {"logic discontinuity.", "logic discontinuity"},
      {"<verdict>invalid_tool</verdict>", "invalid tool"},
      {"It is good, keep it", "judge not readable"},
      {"<verdict>good</verdict>", "judge not readable"},
      {"", "judge not readable"},
  };
  std::int64_t number = 0;
  for (const auto& [reply, reason] : verdicts) {
    teacher_.say("fas.plan_judge", reply);
    teacher_.say("fas.question", fmt::format("<question>Which town is number {}?</question><answer>Turin</answer>", number++));
    FasResult result = run();
    ASSERT_EQ(result.rejects.size(), 1u) << reply;
    EXPECT_EQ(result.rejects[0].reason, reason) << reply;
    EXPECT_TRUE(result.samples.empty());
    yields.add(result);
  }
  teacher_.say("fas.plan_judge", "KEEP");
  teacher_.say("fas.question", kQuestion);
  FasResult kept = run();
  yields.add(kept);
  for (const char* reason : {"content inconsistency", "search necessity", "logic discontinuity", "invalid tool"}) {
    EXPECT_EQ(yields.of("fas_planning").rejected(reason), 1) << reason;
  }
  EXPECT_EQ(yields.of("fas_planning").rejected("judge not readable"), 3);
  EXPECT_EQ(yields.of("fas_planning").tried(), 8);
  EXPECT_EQ(yields.of("fas_planning").kept(), 1);
  EXPECT_EQ(yields.of("fas_question").kept(), 8);
  EXPECT_NE(yields.text(true, false).find("planning steps                      8 tried, 1 kept (12.5 %)"), std::string::npos)
      << yields.text(true, false);
}

TEST_F(Fas, ReasoningIsKeptWhereItsAnswerIsRight) {
  options_.planning = false;
  const auto with = [&](const std::string& reply) {
    teacher_.say("fas.reason_known", reply);
    return reasons();
  };
  const std::vector<std::string> none;
  EXPECT_EQ(with("<think>a long thought</think><answer>Milan</answer>"), std::vector<std::string>{"fas_reasoning: wrong answer"});
  EXPECT_EQ(with("<think>a long thought</think><tool_call>{\"name\": \"search\", \"arguments\": {\"query\": [\"a\"]}}</tool_call>"),
            std::vector<std::string>{"fas_reasoning: not readable"});
  EXPECT_EQ(with("Turin"), std::vector<std::string>{"fas_reasoning: not readable"});
  EXPECT_EQ(with("<think>x</think><answer>Turin</answer>"), std::vector<std::string>{"fas_reasoning: too short"});
  EXPECT_EQ(with("<think>a long thought</think><answer>the TURIN</answer>"), none);
  options_.answer_judge = true;
  EXPECT_EQ(with("<think>a long thought</think><answer>Torino</answer>"), none);
  ASSERT_EQ(teacher_.asked("fas.answer_judge").size(), 1u);
  EXPECT_NE(teacher_.asked("fas.answer_judge")[0].messages[0].content.find("Somebody's answer: Torino"), std::string::npos);
  teacher_.say("fas.answer_judge", "<verdict>different</verdict>");
  EXPECT_EQ(with("<think>a long thought</think><answer>Torino</answer>"), std::vector<std::string>{"fas_reasoning: wrong answer"});
  teacher_.say("fas.answer_judge", "?");
  EXPECT_EQ(with("<think>a long thought</think><answer>Torino</answer>"), std::vector<std::string>{"fas_reasoning: judge not readable"});
  EXPECT_EQ(with("<think>a long thought</think><answer>Turin</answer>"), none);
  teacher_.say("fas.reason_alone", "!refused");
  EXPECT_EQ(with(kReason), std::vector<std::string>{"fas_reasoning: teacher refused"});
}

TEST_F(Fas, AQuestionAskedBeforeIsNotKeptAgain) {
  FasYields yields;
  FasResult first = run(1), second = run(2);
  yields.add(first), yields.add(second);
  EXPECT_EQ(first.samples.size(), 2u);
  EXPECT_TRUE(second.samples.empty());
  ASSERT_EQ(second.rejects.size(), 1u);
  EXPECT_EQ(second.rejects[0].reason + second.rejects[0].style, "asked beforemulti_hop");
  EXPECT_EQ(yields.of("fas_question").tried(), 2);
  EXPECT_EQ(yields.of("fas_planning").tried(), 1);
}

TEST_F(Fas, AStoppedTeacherIsNoReject) {
  teacher_.stop();
  EXPECT_THROW(run(), TeacherError);
}

}  // namespace
}  // namespace af
