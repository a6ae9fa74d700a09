// First-order action synthesis with a teacher (arXiv 2509.13310): from a cluster of knowledge a question in a given style with its answer;
// then a planning step (analysis and first action, never executed), which a judge that sees the knowledge keeps or rejects; and reasoning in
// two steps, from the question alone and then with the knowledge, kept where its answer is the right one.
#pragma once
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "data/synthesis/knowledge.h"
#include "data/synthesis/prompts.h"
#include "data/synthesis/rejects.h"
#include "data/synthesis/sample.h"
#include "data/synthesis/teacher.h"
#include "data/synthesis/token_count.h"
#include "data/synthesis/tool_schema.h"

namespace af {

// Names of the prompts style_*; the order is the one in which --help shows them.
const std::vector<std::string>& fas_styles();

struct FasOptions {
  std::uint64_t seed = 0;
  std::vector<std::string> styles = fas_styles();
  int styles_per_memory = 2;  // questions on one cluster, each in another style; at most as many as there are styles
  bool planning = true, reasoning = true;
  std::int64_t min_length = 16, max_length = 4096;  // tokens of the thought
  bool answer_judge = false;                        // a teacher decides where the text of an answer does not match
  double temperature = 1, top_p = 0.95;             // judges: 0
  int max_tokens = 4096;                            // of a reply
  std::string teacher;                              // named in the samples
};

// A question to be written. The questions are those of one endless list, which the seed gives: asking for more goes on where fewer ended.
struct FasItem {
  std::int64_t number = 0;
  Knowledge knowledge;
  std::string style;
};

class FasItems {
 public:
  FasItems(KnowledgeSampler& sampler, const FasOptions& options) : sampler_(sampler), options_(options) {}
  std::optional<FasItem> next();  // nullopt: the memory has nothing to ask about

 private:
  KnowledgeSampler& sampler_;
  const FasOptions& options_;
  std::int64_t number_ = 0;
  Knowledge knowledge_;
  std::vector<std::string> styles_;  // left for knowledge_; taken from the end
};

struct FasResult {
  std::string id;
  std::vector<Sample> samples;  // ids "fas-NUMBER-planning", "fas-NUMBER-reasoning"
  std::vector<Reject> rejects;  // kind: fas_question, fas_planning, fas_reasoning
  std::string question;         // "" where there is none
};

// What came of all items. A question that was asked before becomes a reject, with all that was made of it.
class FasYields {
 public:
  FasYields();
  void add(FasResult& result);  // in the order of the items
  Yield& of(const std::string& kind);
  std::string text(bool with_planning, bool with_reasoning) const;

 private:
  Yield question_, planning_, reasoning_;
  std::unordered_set<std::string> asked_;
};

// Any thread may run it, on different items at once. What the teacher fails at is a reject, unless it was stopped.
class FasSynthesis {
 public:
  FasSynthesis(Teacher& teacher, const Prompts& prompts, const ToolSet& tools, const TokenCounter& length, const FasOptions& options)
      : teacher_(teacher), prompts_(prompts), tools_(tools), length_(length), options_(options) {}
  FasResult run(const FasItem& item) const;

 private:
  struct Question {
    std::string text, answer;
  };
  // Each throws Rejected (fas.cc) where there is nothing to keep.
  std::string ask(const std::string& purpose, const std::string& prompt, const FasItem& item, double temperature) const;
  Question question(const FasItem& item) const;
  std::string planning(const FasItem& item, const Question& question) const;   // the step's text
  std::string reasoning(const FasItem& item, const Question& question) const;  // likewise
  bool is_right(const FasItem& item, const Question& question, const std::string& candidate) const;
  void check_length(const std::string& thought) const;

  Teacher& teacher_;
  const Prompts& prompts_;
  const ToolSet& tools_;
  const TokenCounter& length_;
  const FasOptions& options_;
};

}  // namespace af
