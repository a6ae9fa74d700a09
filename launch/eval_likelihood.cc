// af_eval likelihood: decisions, judgements and answers of samples, by what the model holds for likeliest.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

#include "data/file.h"
#include "data/json.h"
#include "launch/eval_commands.h"
#include "launch/eval_job.h"
#include "launch/eval_report.h"
#include "launch/eval_scorer.h"
#include "launch/progress.h"

namespace af {
namespace {

struct Settings {
  std::string output, json;
  bool skip_long = false;
};

// Questions as they are numbered on all ranks, with what the ranks found of them.
struct Results {
  std::vector<LikelihoodQuestion> questions;
  std::vector<std::vector<double>> log_likelihoods;  // of each; empty: its sample is too long
  std::int64_t too_long = 0;                         // samples
};

int most_likely(const LikelihoodQuestion& question, const std::vector<double>& log_likelihoods, bool per_byte) {
  int best = 0;
  const auto value = [&](int i) { return log_likelihoods[std::size_t(i)] / (per_byte ? double(question.candidates[std::size_t(i)].size()) : 1); };
  for (int i = 1; i < int(question.candidates.size()); ++i)
    if (value(i) > value(best)) best = i;
  return best;
}

// This rank's samples with their questions, tokenized; `numbers` are the questions' of each.
struct Share {
  std::vector<TokenizedDocument> documents;
  std::vector<std::vector<std::size_t>> numbers;
  std::vector<std::int64_t> bytes = {0};  // of the documents' texts, added up
  std::int64_t too_long = 0;
};

Share share_of(const EvalJob& job, const Tokenizer& tokenizer, const EvalModel& model, const std::vector<Sample>& samples,
               const std::vector<LikelihoodQuestion>& questions, const Settings& settings) {
  Share share;
  const std::unique_ptr<Encoder> encoder = tokenizer.encoder();
  for (std::size_t begin = 0, end; begin < questions.size(); begin = end) {
    const std::int64_t sample = questions[begin].sample;
    for (end = begin; end < questions.size() && questions[end].sample == sample; ++end) {
    }
    if (sample % job.world.size() != job.world.rank()) continue;
    TokenizedDocument document = tokenize_document(*encoder, samples[std::size_t(sample)], std::span(questions).subspan(begin, end - begin));
    if (const std::int64_t tokens = Scorer::needed_tokens(document); tokens > model.max_tokens()) {
      if (!settings.skip_long)
        user_error("sample {}: {} tokens, and {} has positions for {}; --skip-long leaves such samples out", samples[std::size_t(sample)].id, tokens,
                   model.name(), model.max_tokens());
      ++share.too_long;
      continue;
    }
    share.documents.push_back(std::move(document));
    share.bytes.push_back(share.bytes.back() + std::int64_t(text_of(samples[std::size_t(sample)]).size()));
    share.numbers.emplace_back();
    for (std::size_t q = begin; q < end; ++q) share.numbers.back().push_back(q);
  }
  return share;
}

// Every rank learns what all found: numbers that one rank has, the others 0.
void exchange(const Comm& world, const Share& share, const LogLikelihoods& found, Results& results) {
  std::vector<std::size_t> begins;
  std::size_t total = 0;
  for (const LikelihoodQuestion& question : results.questions) {
    begins.push_back(total);
    total += question.candidates.size() + 1;
  }
  std::vector<double> flat(total + 1, 0);
  for (std::size_t d = 0; d < share.documents.size(); ++d)
    for (std::size_t i = 0; i < share.numbers[d].size(); ++i) {
      flat[begins[share.numbers[d][i]]] = 1;  // was asked
      std::copy(found[d][i].begin(), found[d][i].end(), flat.begin() + std::ptrdiff_t(begins[share.numbers[d][i]]) + 1);
    }
  flat.back() = double(share.too_long);
  world.all_reduce(Tensor(flat.data(), DType::f64, {std::int64_t(flat.size())})).wait();
  for (std::size_t q = 0; q < results.questions.size(); ++q) {
    const auto first = flat.begin() + std::ptrdiff_t(begins[q]) + 1;
    results.log_likelihoods.emplace_back(first, flat[begins[q]] > 0 ? first + std::ptrdiff_t(results.questions[q].candidates.size()) : first);
  }
  results.too_long = std::int64_t(flat.back());
}

const char* outcome_of(const Sample& sample) { return !sample.outcome ? "unknown" : *sample.outcome ? "good" : "failed"; }

// Good and failed trajectories counting as much: always the same word gets 50 %, however many are good.
void add_balanced_judgement(const Results& results, TallyTable& table) {
  std::vector<std::size_t> of[2];
  for (std::size_t q = 0; q < results.questions.size(); ++q)
    if (results.questions[q].kind == QuestionKind::judgement && !results.log_likelihoods[q].empty()) of[results.questions[q].right].push_back(q);
  if (of[0].empty() || of[1].empty()) return;
  for (const std::vector<std::size_t>& same : of)
    for (const std::size_t q : same)
      table["judgement, good and failed weighing the same"].add(
          results.questions[q].sample, most_likely(results.questions[q], results.log_likelihoods[q], false) == results.questions[q].right, 0.5,
          0.5 * double(of[0].size() + of[1].size()) / double(same.size()));
}

TallyTable tables_of(const std::vector<Sample>& samples, const Results& results) {
  TallyTable table;
  const auto each = [&](QuestionKind kind, bool per_byte, auto group) {  // group(question, sample) -> its name, after a number that orders
    std::map<std::pair<std::int64_t, std::string>, std::vector<std::size_t>> groups;
    for (std::size_t q = 0; q < results.questions.size(); ++q) {
      const LikelihoodQuestion& question = results.questions[q];
      if (question.kind == kind && !results.log_likelihoods[q].empty()) groups[group(question, samples[std::size_t(question.sample)])].push_back(q);
    }
    for (const auto& [name, members] : groups)
      for (const std::size_t q : members) {
        const LikelihoodQuestion& question = results.questions[q];
        table[name.second].add(question.sample, most_likely(question, results.log_likelihoods[q], per_byte) == question.right,
                               1 / double(question.candidates.size()));
      }
  };
  using Name = std::pair<std::int64_t, std::string>;
  const auto decisions = [&](auto group) { each(QuestionKind::decision, false, group); };
  decisions([](const LikelihoodQuestion&, const Sample&) { return Name(0, "decision"); });
  decisions(
      [](const LikelihoodQuestion& q, const Sample&) { return Name(q.candidates.size(), fmt::format("decision, {} options", q.candidates.size())); });
  decisions([](const LikelihoodQuestion& q, const Sample&) { return Name(q.right, fmt::format("decision, option {} is right", q.right + 1)); });
  decisions([](const LikelihoodQuestion& q, const Sample&) {
    constexpr int kMost = 8;
    return q.step + 1 < kMost ? Name(q.step, fmt::format("decision, step {}", q.step + 1))
                              : Name(kMost, fmt::format("decision, step {} and later", kMost));
  });
  decisions([](const LikelihoodQuestion&, const Sample& s) { return Name(0, fmt::format("decision, {} trajectories", outcome_of(s))); });
  decisions([](const LikelihoodQuestion&, const Sample& s) { return Name(0, fmt::format("decision, wording {}", s.style)); });
  for (const bool per_byte : {false, true}) {
    const char* how = per_byte ? ", per byte" : "";
    const auto options = [&](auto group) { each(QuestionKind::option, per_byte, group); };
    options([&](const LikelihoodQuestion&, const Sample&) { return Name(0, fmt::format("option by its words{}", how)); });
    options([&](const LikelihoodQuestion& q, const Sample&) { return Name(q.candidates.size(), fmt::format("option by its words, of {}{}", q.candidates.size(), how)); });
    options([&](const LikelihoodQuestion&, const Sample& s) { return Name(0, fmt::format("option by its words, {} trajectories{}", outcome_of(s), how)); });
  }
  each(QuestionKind::judgement, false, [](const LikelihoodQuestion&, const Sample&) { return Name(0, "judgement"); });
  add_balanced_judgement(results, table);
  each(QuestionKind::judgement, false,
       [](const LikelihoodQuestion&, const Sample& s) { return Name(0, fmt::format("judgement, {} trajectories", outcome_of(s))); });
  for (const bool per_byte : {false, true}) {
    const char* how = per_byte ? ", per byte" : "";
    each(QuestionKind::answer, per_byte,
         [&](const LikelihoodQuestion&, const Sample& s) { return Name(0, fmt::format("answer, {}{}", s.kind, how)); });
    each(QuestionKind::answer, per_byte,
         [&](const LikelihoodQuestion&, const Sample& s) { return Name(0, fmt::format("answer, {} {}{}", s.kind, s.style, how)); });
  }
  return table;
}

std::string lines_of(const std::vector<Sample>& samples, const Results& results) {
  std::string out;
  for (std::size_t q = 0; q < results.questions.size(); ++q) {
    const LikelihoodQuestion& question = results.questions[q];
    if (results.log_likelihoods[q].empty()) continue;
    JsonLine line;
    line.add("id", samples[std::size_t(question.sample)].id).add("question", name_of(question.kind));
    if (question.kind == QuestionKind::decision || question.kind == QuestionKind::option) line.add("step", question.step + 1);
    line.add("options", std::int64_t(question.candidates.size())).add("right", question.right + 1);
    line.add("chosen", most_likely(question, results.log_likelihoods[q], false) + 1);
    line.add("log_likelihoods", std::span<const double>(results.log_likelihoods[q]));
    out += line.text() + "\n";
  }
  return out;
}

int likelihood(const Arguments& arguments, const EvalJob& job) {
  const Settings settings{arguments.value("--output"), arguments.value("--json"), arguments.has("--skip-long")};
  for (const std::string& path : {settings.output, settings.json}) check_output(path, arguments.values("--input"));
  const std::vector<Sample> samples = read_samples(arguments.values("--input"), arguments.integer("--limit", INT64_MAX, 1));
  const std::int64_t distractors = arguments.integer("--distractors", 3, 0, 100);
  Results results{questions_of(samples, int(distractors), std::uint64_t(arguments.integer("--seed", 1))), {}, 0};
  if (results.questions.empty())
    user_error("{}: nothing to ask in {} samples: no decisions, judgements or answers", arguments.value("--input"), samples.size());
  EvalModel model = eval_model_from(arguments, job.device);
  const std::unique_ptr<Tokenizer> tokenizer = eval_tokenizer_from(arguments, model);
  const Share share = share_of(job, *tokenizer, model, samples, results.questions, settings);

  Scorer scorer(model);
  LogLikelihoods found;
  {
    Progress progress("evaluating", job.speaks() && ::isatty(STDERR_FILENO) != 0);
    found = scorer.score(share.documents, [&](std::size_t n) {
      if (job.speaks()) progress.show(double(share.bytes[n]) / double(std::max<std::int64_t>(1, share.bytes.back())), share.bytes[n]);
    });
  }
  exchange(job.world, share, found, results);
  if (!job.speaks()) return kExitDone;

  const TallyTable table = tables_of(samples, results);
  fmt::print("{}: {} samples, {} questions", model.name(), samples.size(), results.questions.size());
  if (results.too_long > 0) fmt::print("; {} samples left out, longer than {} tokens", results.too_long, model.max_tokens());
  fmt::print("\n{}", table.text());
  fmt::print("{} tokens of documents, {:.0f} a second{}\n", scorer.tokens(), double(scorer.tokens()) / std::max(1e-9, scorer.seconds()),
             job.world.size() > 1 ? ", on the first rank" : "");
  write_output(settings.output, lines_of(samples, results));
  if (!settings.json.empty())
    write_output(settings.json, JsonLine()
                                        .add("model", model.name())
                                        .add("samples", std::int64_t(samples.size()))
                                        .add("questions", std::int64_t(results.questions.size()))
                                        .add("too_long", results.too_long)
                                        .add("groups", table.json())
                                        .text() +
                                    "\n");
  return kExitDone;
}

}  // namespace

Command likelihood_command() {
  std::vector<Option> options = eval_model_options();
  options.insert(
      options.end(),
      {{"--input", Takes::values, "FILE", "samples of af_synth, JSON lines; also .gz and .zst", {}, true},
       {"--limit", Takes::one_value, "N", "the first N samples alone", {}, false},
       {"--output", Takes::one_value, "FILE.jsonl", "a line for every question: the log-likelihood of each candidate", {}, false},
       {"--json", Takes::one_value, "FILE.json", "the table, with every digit", {}, false},
       {"--distractors",
        Takes::one_value,
        "N",
        "wrong answers beside the right one of a FAS sample (default 3; 0: answers are not asked)",
        {},
        false},
       {"--seed", Takes::one_value, "N", "which answers of other samples these are (default 1)", {}, false},
       {"--skip-long", Takes::nothing, "", "leaves out samples that are longer than the model's positions (default: an error)", {}, false}});
  return {"likelihood",
          "decisions, judgements and answers by what the model holds for likeliest, with standard errors and what chance gives",
          "",
          0,
          0,
          options,
          {"af_eval likelihood --checkpoint runs/x/checkpoints --tokenizer tokenizer/ --input has_held_out.jsonl",
           "af_eval likelihood --random run.yaml --tokenizer tokenizer/ --input has_held_out.jsonl --json untrained.json",
           "mpirun -np 8 af_eval likelihood --hf qwen3_4b/ --precision bf16 --input has.jsonl fas.jsonl --output results.jsonl"},
          [](const Arguments& arguments) { return run_eval(arguments, [&](const EvalJob& job) { return likelihood(arguments, job); }); }};
}

}  // namespace af
