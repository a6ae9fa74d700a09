// af_eval generate: questions put to a model that calls tools, which a memory answers.
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <map>
#include <set>

#include <fmt/format.h>

#include "core/random.h"
#include "data/file.h"
#include "data/json.h"
#include "data/synthesis/answer_match.h"
#include "data/synthesis/memory.h"
#include "data/synthesis/world.h"
#include "data/utf8.h"
#include "launch/eval_commands.h"
#include "launch/eval_generator.h"
#include "launch/eval_job.h"
#include "launch/eval_pass.h"
#include "launch/json_line.h"
#include "launch/progress.h"

namespace af {
namespace {

struct AskedQuestion {
  std::string id, text;
  std::vector<std::string> answers;  // all right
};

struct Attempt {
  bool right = false, exact = false;  // says or mentions a right answer; says nothing else
  Episode::End end = Episode::End::none;
  std::int64_t calls = 0, written = 0;
};

Attempt attempt_of(const AskedQuestion& question, const Episode& episode) {
  Attempt attempt{false, false, episode.end(), episode.calls(), episode.written()};
  if (attempt.end != Episode::End::answer) return attempt;
  const std::string said = normalised_answer(episode.answer());
  for (const std::string& answer : question.answers) {
    attempt.exact |= answers_match(episode.answer(), answer);
    attempt.right |= attempt.exact || mentions(said, normalised_answer(answer));
  }
  return attempt;
}

// {"question", "answer"}, or a sample of af_synth: its first segment.
AskedQuestion question_from(const JsonView& json, std::int64_t number) {
  AskedQuestion question;
  question.id = json.has("id") ? (json["id"].value().is_integer() ? fmt::format("{}", json["id"].integer()) : json["id"].string()) : fmt::format("{}", number);
  question.text = json.has("segments") ? json["segments"][0]["text"].string() : json["question"].string();
  while (question.text.ends_with('\n')) question.text.pop_back();
  const JsonView answer = json["answer"];
  if (answer.value().is_array()) {
    for (std::size_t i = 0; i < answer.size(); ++i) question.answers.push_back(answer[i].string());
  } else {
    question.answers.push_back(answer.string());
  }
  if (question.answers.empty() || std::any_of(question.answers.begin(), question.answers.end(), [](const auto& a) { return normalised_answer(a).empty(); }))
    user_error("{}: expected an answer, or several, with words", answer.where());
  return question;
}

std::vector<AskedQuestion> read_questions(const std::vector<std::string>& files, std::int64_t limit) {
  std::vector<AskedQuestion> questions;
  std::set<std::string> ids;
  read_json_lines(files, [&](const Json& json, const std::string& where) {
    const JsonView view(json, where);
    questions.push_back(question_from(view, std::int64_t(questions.size()) + 1));
    if (!ids.insert(questions.back().id).second) user_error("{}: a second question with the id '{}', by which its random numbers are drawn", where, questions.back().id);
    return std::int64_t(questions.size()) < limit;
  });
  if (questions.empty()) user_error("{}: there are no questions", files.front());
  return questions;
}

// A model may write bytes that are no UTF-8: each becomes U+FFFD.
std::string readable(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const int bytes = utf8_character(text, at).bytes;
    out.append(bytes ? text.substr(at, std::size_t(bytes)) : "\xef\xbf\xbd");
    at += std::size_t(std::max(bytes, 1));
  }
  return out;
}

// A trajectory, as 'af_synth has' reads them.
std::string line_of(const AskedQuestion& question, std::int64_t attempt, const Episode& episode, bool right) {
  Json::Array messages, answers(question.answers.begin(), question.answers.end());
  for (const Message& message : episode.messages()) messages.push_back(Json::Object{{"role", message.role}, {"content", readable(message.content)}});
  const Json json = Json::Object{{"id", question.id + "#" + std::to_string(attempt + 1)}, {"messages", messages}, {"answer", answers},
                                 {"outcome", right},   {"said", readable(episode.answer())},   {"end", name_of(episode.end())},
                                 {"calls", episode.calls()}, {"tokens", episode.written()}};
  return json.dump() + "\n";
}

// The ranks' texts on every rank, of rank 0 first.
std::vector<std::string> gather_texts(const Comm& world, const std::string& own) {
  std::vector<std::int64_t> sizes(std::size_t(world.size()), 0), rows(sizes.size());
  sizes[std::size_t(world.rank())] = std::int64_t(own.size());
  world.all_reduce(Tensor(sizes.data(), DType::i64, {std::int64_t(sizes.size())})).wait();
  std::int64_t total = 0;
  for (std::size_t r = 0; r < sizes.size(); ++r) total += rows[r] = sizes[r] / 8 + 1;  // whole words
  std::vector<std::int64_t> mine(std::size_t(rows[std::size_t(world.rank())]), 0), all(std::size_t(total), 0);
  std::copy(own.begin(), own.end(), reinterpret_cast<char*>(mine.data()));
  world.all_gather_v(Tensor(mine.data(), DType::i64, {std::int64_t(mine.size())}), Tensor(all.data(), DType::i64, {total}), rows).wait();
  std::vector<std::string> texts;
  const char* at = reinterpret_cast<const char*>(all.data());
  for (std::size_t r = 0; r < sizes.size(); at += 8 * rows[r++]) texts.emplace_back(at, std::size_t(sizes[r]));
  return texts;
}

class Generate {
 public:
  Generate(const Arguments& arguments, const EvalJob& job) : arguments_(arguments), job_(job) {
    output_ = arguments.value("--output"), json_ = arguments.value("--json");
    for (const std::string& path : {output_, json_}) check_output(path, arguments.values("--input"));
    questions_ = read_questions(arguments.values("--input"), arguments.integer("--limit", INT64_MAX, 1));
    samples_ = arguments.integer("--samples", 1, 1);
    const std::map<std::string, AgentFormat> formats = {{"chat", AgentFormat::chat}, {"text", AgentFormat::text}, {"has", AgentFormat::has}};
    agent_.format = formats.at(arguments.value("--format", "chat"));
    if (arguments.has("--system-prompt")) agent_.system_prompt = read_file(arguments.value("--system-prompt"));
    agent_.max_turns = arguments.integer("--max-calls", agent_.max_turns);
    agent_.stop = arguments.values("--stop");
    for (const std::string& stop : agent_.stop)
      if (stop.empty()) user_error("--stop: an empty string stands everywhere");
    tools_ = arguments.has("--tool-schemas") ? ToolSet::from_file(arguments.value("--tool-schemas")) : ToolSet::built_in();
    world_.results = int(arguments.integer("--results", world_.results, 1, 1000));
    world_.statements = std::size_t(arguments.integer("--statements", std::int64_t(world_.statements), 1));
    settings_.sampling = {arguments.number("--temperature", 0, 0, 100), arguments.number("--top-p", 1, 1e-6, 1),
                          arguments.number("--repetition-penalty", 1, 0.01, 100)};
    if (samples_ > 1 && settings_.sampling.temperature == 0) user_error("--samples {}: at --temperature 0 all attempts are the same", samples_);
    settings_.max_tokens = arguments.integer("--max-tokens", settings_.max_tokens, 1);
    settings_.batch = arguments.integer("--batch", settings_.batch, 1);
    settings_.seed = std::uint64_t(arguments.integer("--seed", 1));
  }

  int run() {
    Memory memory = Memory::open(arguments_.value("--tools"), Memory::Mode::read);
    World world(memory, world_);
    const ToolCaller call = [&](const ToolCall& c) { return world.call(c); };
    EvalModel model = eval_model_from(arguments_, job_.device);
    const std::unique_ptr<Tokenizer> tokenizer = eval_tokenizer_from(arguments_, model);
    settings_.context = arguments_.integer("--context", std::min<std::int64_t>(model.max_tokens(), 8192), 1);
    if (settings_.context > model.max_tokens()) user_error("--context {}: {} has positions for {} tokens", settings_.context, model.name(), model.max_tokens());
    attempts_.resize(questions_.size() * std::size_t(samples_));
    Generator generator(model, tokenizer->vocab_size(), settings_);
    generate(generator, *tokenizer, call);
    gather();
    if (job_.speaks()) report(model, generator.rates());
    return kExitDone;
  }

 private:
  void generate(Generator& generator, const Tokenizer& tokenizer, const ToolCaller& call) {
    Progress progress("generating", job_.speaks() && ::isatty(STDERR_FILENO) != 0, kAttempts);
    std::vector<Generator::Task> tasks;
    std::int64_t done = 0;
    for (std::size_t i = std::size_t(job_.world.rank()); i < questions_.size(); i += std::size_t(job_.world.size()))
      for (std::int64_t s = 0; s < samples_; ++s) {
        const AskedQuestion& question = questions_[i];
        const auto begin = [&, i] {
          Episode episode(agent_, tokenizer, tools_, call, questions_[i].text);
          if (std::int64_t(episode.tokens().size()) >= settings_.context)
            user_error("question {}: its prompt has {} tokens, and --context is {}", questions_[i].id, episode.tokens().size(), settings_.context);
          return episode;
        };
        const auto finished = [&, i, s](const Episode& episode) {
          const std::size_t number = i * std::size_t(samples_) + std::size_t(s);
          attempts_[number] = attempt_of(questions_[i], episode);
          lines_[number] = line_of(questions_[i], s, episode, attempts_[number].right);
          ++done;
          if (job_.speaks()) progress.show(double(done) / double(tasks_), done);
        };
        tasks.push_back({begin, hash_name(question.id + "#" + std::to_string(s)), finished});
      }
    tasks_ = std::int64_t(tasks.size());
    if (job_.speaks()) progress.show(0, 0);
    generator.run(std::move(tasks));
  }

  void gather() {
    std::vector<std::int64_t> numbers;  // of one rank each, 0 elsewhere
    for (const Attempt& a : attempts_) numbers.insert(numbers.end(), {a.right + 2 * a.exact, std::int64_t(a.end), a.calls, a.written});
    job_.world.all_reduce(Tensor(numbers.data(), DType::i64, {std::int64_t(numbers.size())})).wait();
    for (std::size_t i = 0; i < attempts_.size(); ++i)
      attempts_[i] = {(numbers[4 * i] & 1) != 0, (numbers[4 * i] & 2) != 0, Episode::End(numbers[4 * i + 1]), numbers[4 * i + 2], numbers[4 * i + 3]};
    if (output_.empty()) return;
    std::string own;
    for (const auto& [number, line] : lines_) own += line;
    const std::vector<std::string> texts = gather_texts(job_.world, own);
    std::vector<std::size_t> at(texts.size(), 0);
    for (std::size_t i = 0; i < attempts_.size(); ++i) {  // as the questions stand in the file
      const std::size_t rank = i / std::size_t(samples_) % texts.size(), end = texts[rank].find('\n', at[rank]) + 1;
      text_.append(texts[rank], at[rank], end - at[rank]);
      at[rank] = end;
    }
  }

  void report(const EvalModel& model, const GeneratorRates& rates) const {
    std::map<std::string, std::int64_t> ends;
    double calls = 0, written = 0, exact = 0;
    for (const Attempt& a : attempts_) ++ends[name_of(a.end)], exact += a.exact, calls += double(a.calls), written += double(a.written);
    const double n = double(attempts_.size());
    fmt::print("{}: {} questions, {} attempts each\n", model.name(), questions_.size(), samples_);
    JsonLine passes, ended;
    for (std::int64_t k = 1;; k = std::min(2 * k, samples_)) {
      std::vector<double> values;
      for (std::size_t q = 0; q < questions_.size(); ++q) {
        const auto first = attempts_.begin() + std::ptrdiff_t(q) * samples_;
        values.push_back(pass_at(k, samples_, std::count_if(first, first + samples_, [](const Attempt& a) { return a.right; })));
      }
      const MeanOfQuestions pass = mean_of(values);
      fmt::print("pass@{:<4} {:6.2f} +- {:.2f} %\n", k, 100 * pass.mean, 100 * pass.standard_error);
      passes.add(fmt::format("pass@{}", k), JsonLine().add("mean", pass.mean).add("standard_error", pass.standard_error));
      if (k == samples_) break;
    }
    fmt::print("{:.2f} % of the attempts say a right answer and nothing else\nended:", 100 * exact / n);
    for (const auto& [end, count] : ends) fmt::print(" {} {},", end, count), ended.add(end, count);
    fmt::print(" {:.1f} calls and {:.0f} tokens each\n", calls / n, written / n);
    const double prefill = double(rates.prefill_tokens) / std::max(1e-9, rates.prefill_seconds), decode = double(rates.decode_tokens) / std::max(1e-9, rates.decode_seconds);
    fmt::print("tokens a second: prompts and responses {:.0f}, writing {:.0f}{}\n", prefill, decode, job_.world.size() > 1 ? ", on the first rank" : "");
    write_output(output_, text_);
    if (json_.empty()) return;
    JsonLine line;
    line.add("model", model.name()).add("questions", std::int64_t(questions_.size())).add("attempts", samples_).add("passes", passes).add("ended", ended);
    line.add("exact", exact / n).add("calls", calls / n).add("tokens", written / n).add("prefill_tokens_per_second", prefill).add("decode_tokens_per_second", decode);
    write_output(json_, line.text() + "\n");
  }

  const Arguments& arguments_;
  const EvalJob& job_;
  std::string output_, json_, text_;
  std::vector<AskedQuestion> questions_;
  std::int64_t samples_ = 1, tasks_ = 0;
  AgentSettings agent_;
  WorldOptions world_;
  ToolSet tools_;
  GeneratorSettings settings_;
  std::vector<Attempt> attempts_;              // question by question
  std::map<std::size_t, std::string> lines_;  // of this rank's
};

}  // namespace

Command generate_command() {
  std::vector<Option> options = eval_model_options();
  options.insert(
      options.end(),
      {{"--input", Takes::values, "FILE", "questions, JSON lines: {\"question\", \"answer\": a text or a list of right ones, \"id\"}, or samples of af_synth", {}, true},
       {"--tools", Takes::one_value, "MEMORY.db", "the memory of af_synth that answers search and visit", {}, true},
       {"--results", Takes::one_value, "N", "of a search (default 10); as in the training data: af_synth has gives 3", {}, false},
       {"--statements", Takes::one_value, "N", "of a page, those that fit the goal best (default 30); likewise", {}, false},
       {"--tool-schemas", Takes::one_value, "FILE.json", "the tools that the model may call, in OpenAI's format (default: the built-in ones)", {}, false},
       {"--format", Takes::one_value, "", "how a question is put: as chat messages (default), as FAS text, or as HAS text, whose options are begun for the model",
        {"chat", "text", "has"}, false},
       {"--system-prompt", Takes::one_value, "FILE", "chat: the first message (default: none)", {}, false},
       {"--samples", Takes::one_value, "N", "attempts at each question, for pass@N (default 1)", {}, false},
       {"--temperature", Takes::one_value, "T", "0 (default): always the likeliest token", {}, false},
       {"--top-p", Takes::one_value, "P", "of the likeliest tokens, as many as have this probability together (default 1: all)", {}, false},
       {"--repetition-penalty", Takes::one_value, "R", "as in transformers (default 1: none)", {}, false},
       {"--seed", Takes::one_value, "N", "of what is drawn (default 1); the result depends on it, not on --batch or the ranks", {}, false},
       {"--max-tokens", Takes::one_value, "N", "that the model may write in an attempt (default 1024)", {}, false},
       {"--max-calls", Takes::one_value, "N", "tool calls of an attempt (default 8)", {}, false},
       {"--context", Takes::one_value, "N", "tokens of an attempt with its prompt and responses (default: the model's positions, at most 8192)", {}, false},
       {"--stop", Takes::values, "TEXT", "strings that end an attempt", {}, false},
       {"--batch", Takes::one_value, "N", "attempts side by side (default 8)", {}, false},
       {"--limit", Takes::one_value, "N", "the first N questions alone", {}, false},
       {"--output", Takes::one_value, "FILE.jsonl", "every attempt, as a trajectory that 'af_synth has' reads", {}, false},
       {"--json", Takes::one_value, "FILE.json", "the figures, with every digit", {}, false}});
  return {"generate",
          "pass@1 and pass@N of a model that searches a memory until it answers",
          "",
          0,
          0,
          options,
          {"af_eval generate --checkpoint runs/x/checkpoints --tokenizer tokenizer/ --input questions.jsonl --tools memory.db --format text",
           "mpirun -np 8 af_eval generate --hf qwen3_4b/ --input webshaper.jsonl --tools memory.db --samples 8 --temperature 0.6 --top-p 0.95 --output attempts.jsonl"},
          [](const Arguments& arguments) { return run_eval(arguments, [&](const EvalJob& job) { return Generate(arguments, job).run(); }); }};
}

}  // namespace af
